// Local linear regression with one weight, in closed form: the numbers of sliders.md, without the page.
//
//     θ_N ~ Normal(θ, τ²)          the slope of one neighbourhood
//     y_k ~ Normal(a_k θ_N, σ²)    K outputs for K inputs
//
// It is hierarchical_lvae/models/linear_regression.py with P = 1; tests/test_sliders.py compares the two.

const sliders = (() => {
  "use strict";

  const THETA = 0.5;
  const MOST_NEIGHBOURS = 20;
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  /** Uniform draws in [0, 1) from a seed (mulberry32): the same in every browser. */
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let bits = Math.imul(state ^ (state >>> 15), state | 1);
      bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
      return ((bits ^ (bits >>> 14)) >>> 0) / 4294967296;
    };
  }

  /**
   * The neighbourhood of a seed: inputs uniform in [−2, 2], a true slope from Normal(THETA, 0.7²), noise of σ.
   * The slope, the inputs and the noise in units of σ depend on the seed alone, so more neighbours extend the data.
   */
  function draw(seed, neighbours, sigma) {
    const uniform = generator(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    const slope = THETA + 0.7 * normal();
    const inputs = [];
    const outputs = [];
    for (let k = 0; k < neighbours; k++) {
      inputs.push(4 * uniform() - 2);
      outputs.push(slope * inputs[k] + sigma * normal());
    }
    return { slope, inputs, outputs };
  }

  /** α of the paper, whose loss is a mean over K neighbours, and τ: τ² = α / K (one output a neighbour). */
  const alphaOf = (tau, neighbours) => neighbours * tau * tau;
  const tauOf = (alpha, neighbours) => Math.sqrt(alpha / neighbours);

  /** ℓ_N(t) = −Σ log Normal(y_k; a_k t, σ²), in nats. */
  function localLoss(t, { inputs, outputs, sigma }) {
    const squares = sum(inputs.map((a, k) => (outputs[k] - a * t) ** 2));
    return squares / (2 * sigma ** 2) + (inputs.length / 2) * Math.log(2 * Math.PI * sigma ** 2);
  }

  /**
   * Everything that the page shows.
   *
   * theta, tau: mean and standard deviation of the prior; sigma: of the noise; inputs, outputs: the neighbourhood;
   * steps: how many steps of size fraction · τ² "several steps" makes, on the loss plus the pull of the prior.
   */
  function infer({ theta, tau, sigma, inputs, outputs, steps, fraction }) {
    const data = { inputs, outputs, sigma };
    const variance = tau ** 2;
    const squares = sum(inputs.map((a) => a * a)); // Σ a²
    const products = sum(inputs.map((a, k) => a * outputs[k])); // Σ a y
    const curvature = squares / sigma ** 2; // H
    const gradient = (t) => (squares * t - products) / sigma ** 2; // ∇ℓ_N(t)
    const slope = gradient(theta);
    const sharpness = variance * curvature; // τ²λ: with one weight, λ = H

    const oneStep = theta - variance * slope;
    const path = [theta];
    for (let t = 0; t < steps; t++) {
      const at = path[t];
      path.push(at - fraction * variance * (gradient(at) + (at - theta) / variance));
    }
    const precision = 1 / variance + curvature; // Λ
    const mode = (theta / variance + products / sigma ** 2) / precision;
    const sd = Math.sqrt(1 / precision);

    const residuals = sum(inputs.map((a, k) => (outputs[k] - a * theta) ** 2));
    const quadratic = residuals / sigma ** 2 - (variance * slope ** 2) / (1 + sharpness);
    const logDeterminant = inputs.length * Math.log(2 * Math.PI * sigma ** 2) + Math.log(1 + sharpness);

    return {
      squares,
      products,
      curvature,
      slope,
      sharpness,
      precision,
      oneStep,
      path,
      severalSteps: path[steps],
      factor: 1 - fraction * (1 + sharpness), // of the distance to the mode, in each of several steps
      mode,
      prior: { mean: theta, sd: tau },
      likelihood: { mean: products / squares, sd: Math.sqrt(1 / curvature) },
      posterior: { mean: mode, sd },
      laplace: { mean: oneStep, sd },
      linearised: { mean: oneStep, sd: tau }, // the posterior if ℓ_N were linear
      implied: sharpness < 1 ? { mean: theta, sd: tau / Math.sqrt(1 - sharpness) } : null,
      lossBefore: localLoss(theta, data),
      lossAfter: localLoss(oneStep, data),
      divergence: (precision * (oneStep - mode) ** 2) / 2, // KL(Laplace ‖ posterior): the widths are equal
      logEvidence: -(quadratic + logDeterminant) / 2,
    };
  }

  /** What the sharpness of the one step means: "fits", "passes" (> 1) or "overshoots" (> 2). */
  const regime = (sharpness) => (sharpness > 2 ? "overshoots" : sharpness > 1 ? "passes" : "fits");

  /** Three significant digits, with a real minus sign. */
  function digits(value) {
    if (!Number.isFinite(value)) return "not finite";
    const size = Math.abs(value);
    let text;
    if (value !== 0 && (size < 0.000995 || size >= 99950)) {
      const [front, power] = value.toExponential(2).split("e");
      const raised = [...power.replace("+", "")].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
      text = `${front} · 10${raised}`;
    } else {
      const rounded = Number(value.toPrecision(3));
      const whole = rounded === 0 ? 1 : Math.floor(Math.log10(Math.abs(rounded))) + 1;
      text = rounded.toFixed(Math.max(0, 3 - Math.max(whole, -2)));
    }
    return text.replace("-", "−");
  }

  return { THETA, MOST_NEIGHBOURS, draw, alphaOf, tauOf, localLoss, infer, regime, digits };
})();
