// The page of sliders.md: reads the sliders, asks sliders.js for the numbers, draws them. It computes nothing itself.

(() => {
  "use strict";

  const { THETA, alphaOf, tauOf, draw, infer, regime, digits } = sliders;
  const element = (id) => document.getElementById(id);
  const START = { keep: "tau", strength: 0.3, neighbours: 5, sigma: 1, steps: 4, fraction: 1, seed: 6 };
  const RANGES = { tau: [0.03, 3], alpha: [0.0009, 180] }; // α = K τ², K up to 20
  const PRESETS = { fits: 0.5, passes: 1.5, overshoots: 2.5 }; // τ²λ, by choice of τ
  const CURVES = [
    { key: "prior", text: "prior, θ", colour: "--prior", dash: "", on: true },
    { key: "likelihood", text: "likelihood, ML estimate", colour: "--likelihood", dash: "9 3 2 3", on: true },
    { key: "posterior", text: "exact posterior, mode (MAP)", colour: "--posterior", dash: "", on: true },
    { key: "step", text: "one step", colour: "--step", dash: "10 4", on: true },
    { key: "laplace", text: "Laplace around the one step", colour: "--step", dash: "6 3", on: true },
    { key: "path", text: "several steps", colour: "--path", dash: "2 3", on: true },
    { key: "linearised", text: "linearised posterior", colour: "--step", dash: "2 4", on: false },
    { key: "implied", text: "implied prior", colour: "--prior", dash: "6 3", on: false },
  ];
  const colour = Object.fromEntries(CURVES.map(({ key, colour: name }) => [key, `var(${name})`]));
  const dash = Object.fromEntries(CURVES.map(({ key, dash: pattern }) => [key, pattern]));
  const state = { ...START };

  const tau = () => (state.keep === "tau" ? state.strength : tauOf(state.strength, state.neighbours));

  function node(name, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") made.style.cssText = value; // var(…) works in styles only
      else made.setAttribute(key, value);
    }
    made.textContent = text;
    return made;
  }

  const line = (key, width = 2.5) =>
    `fill: none; stroke: ${colour[key]}; stroke-width: ${width}px; stroke-dasharray: ${dash[key] || "none"}`;

  /** A panel with axes: scales x and y, and a layer whose content is cut off at the frame. */
  function panel(svg, { left, right, top, bottom }, xs, ys) {
    const width = svg.clientWidth || 340;
    const height = svg.clientHeight || 400;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const frame = { x0: left, x1: width - right, y0: top, y1: height - bottom };
    const x = (value) => frame.x0 + ((value - xs[0]) / (xs[1] - xs[0])) * (frame.x1 - frame.x0);
    const y = (value) => frame.y1 - ((value - ys[0]) / (ys[1] - ys[0])) * (frame.y1 - frame.y0);
    const clip = node("clipPath", { id: `${svg.id}-frame` });
    clip.append(node("rect", { x: frame.x0, y: 0, width: frame.x1 - frame.x0, height }));
    const layer = node("g", { "clip-path": `url(#${svg.id}-frame)` });
    svg.append(clip, layer);
    return { svg, layer, frame, x, y, height };
  }

  const points = (pairs) => pairs.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const whole = (value) => String(value).replace("-", "−");
  const bounded = (value) => Math.max(-1e5, Math.min(1e5, value)); // what SVG can still draw

  function drawWeights(found, shown) {
    const range = [THETA - 2.5, THETA + 2.5];
    const pathHeight = 100;
    const { svg, layer, frame, x, y, height } = panel(
      element("weights"), { left: 30, right: 8, top: 88, bottom: pathHeight + 52 }, range, [0, 1],
    );
    for (let value = Math.ceil(range[0]); value <= range[1]; value++) {
      layer.append(node("line", { class: "grid", x1: x(value), x2: x(value), y1: frame.y0, y2: height - 22 }));
      svg.append(node("text", { x: x(value), y: height - 6, "text-anchor": "middle" }, whole(value)));
    }
    layer.append(node("line", { class: "axis", x1: frame.x0, x2: frame.x1, y1: frame.y1, y2: frame.y1 }));

    for (const key of ["prior", "implied", "likelihood", "linearised", "posterior", "laplace"]) {
      if (!shown[key] || !found[key]) continue;
      const { mean, sd } = found[key];
      const pairs = [];
      for (let t = -60; t <= 60; t++) pairs.push([bounded(x(mean + (t / 12) * sd)), y(Math.exp(-((t / 12) ** 2) / 2))]);
      layer.append(node("polyline", { points: points(pairs), style: line(key) }));
    }

    const marks = [
      ["prior", "θ", THETA],
      ["posterior", "mode", found.mode],
      ["likelihood", "ML estimate", found.likelihood.mean],
      ["step", "one step", found.oneStep],
      ["path", state.steps === 1 ? "“several” = 1 step" : `${state.steps} steps`, found.severalSteps],
    ].filter(([key]) => shown[key]);
    const pathTop = frame.y1 + 26;
    const pathY = (t) => pathTop + (t / state.steps) * pathHeight;
    const labels = marks.map(([key, name, value]) => {
      const side = value < range[0] ? -1 : value > range[1] ? 1 : 0; // of the frame; 0 is inside
      const text = node("text", {}, `${side < 0 ? "← " : ""}${name} ${digits(value)}${side > 0 ? " →" : ""}`);
      svg.append(text);
      const at = x(Math.max(range[0], Math.min(range[1], value)));
      return { key, value, side, text, at, long: text.getComputedTextLength() + 8 };
    });
    // from left to right, each label to the right of its line and below the one before, no line crosses a label;
    // so, too, from right to left
    labels.sort((one, other) => one.value - other.value);
    const fits = ({ side, at, long }, right) => side !== 0 || (right ? at + long < frame.x1 : at - long > frame.x0);
    const rightwards = labels.every((label) => fits(label, true)) || !labels.every((label) => fits(label, false));
    if (!rightwards) labels.reverse();
    labels.forEach((label, row) => {
      const { key, side, text, at } = label;
      const baseline = 13 + 16 * row;
      const right = side === 0 ? fits(label, rightwards) === rightwards : side < 0;
      const [tx, anchor] = right ? [at + 5, "start"] : [at - 5, "end"];
      text.setAttribute("x", tx);
      text.setAttribute("y", baseline);
      text.setAttribute("text-anchor", anchor);
      if (side !== 0) return;
      const y2 = key === "path" ? pathY(state.steps) : height - 22;
      layer.append(node("line", { x1: at, x2: at, y1: baseline - 11, y2, style: line(key, 1.5) }));
    });

    if (shown.path) {
      const pairs = found.path.map((value, t) => [bounded(x(value)), pathY(t)]);
      layer.append(node("polyline", { points: points(pairs), style: line("path", 2) + "; stroke-dasharray: none" }));
      for (const [cx, cy] of pairs) layer.append(node("circle", { cx, cy, r: 4, style: `fill: ${colour.path}` }));
      for (const t of new Set([0, state.steps])) {
        svg.append(node("text", { x: 24, y: pathY(t) + 4, "text-anchor": "end" }, String(t)));
      }
      svg.append(node("text", { x: 0, y: frame.y1 + 14 }, "step"));
    }
    if (shown.step) {
      const [px, py] = [bounded(x(found.oneStep)), frame.y1];
      layer.append(node("path", { d: `M${px - 7},${py}l7,-7l7,7l-7,7z`, style: `fill: ${colour.step}` }));
    }
    if (shown.posterior) {
      const [px, py] = [x(found.mode), frame.y1];
      layer.append(node("path", { d: `M${px - 5},${py - 5}h10v10h-10z`, style: `fill: ${colour.posterior}` }));
    }
    svg.setAttribute("aria-label", marks.map(([, name, value]) => `${name} at ${digits(value)}`).join(", "));
  }

  function drawPoints(found, data, shown) {
    const [ends, tops] = [2.2, 6];
    const { svg, layer, frame, x, y, height } = panel(
      element("points"), { left: 30, right: 8, top: 8, bottom: 36 }, [-ends, ends], [-tops, tops],
    );
    for (let value = -2; value <= 2; value++) {
      layer.append(node("line", { class: "grid", x1: x(value), x2: x(value), y1: frame.y0, y2: frame.y1 }));
      svg.append(node("text", { x: x(value), y: frame.y1 + 15, "text-anchor": "middle" }, whole(value)));
    }
    for (let value = -6; value <= 6; value += 2) {
      layer.append(node("line", { class: "grid", x1: frame.x0, x2: frame.x1, y1: y(value), y2: y(value) }));
      svg.append(node("text", { x: 24, y: y(value) + 4, "text-anchor": "end" }, whole(value)));
    }
    svg.append(node("text", { x: (frame.x0 + frame.x1) / 2, y: height - 4, "text-anchor": "middle" }, "input a"));
    svg.append(node("text", { x: frame.x0 + 6, y: frame.y0 + 12 }, "output y"));
    const clip = svg.querySelector("clipPath rect");
    clip.setAttribute("y", frame.y0);
    clip.setAttribute("height", frame.y1 - frame.y0);

    const at = (slope) => [bounded(y(-ends * slope)), bounded(y(ends * slope))];
    if (shown.posterior) {
      const [low, high] = [-1.96, 1.96].map((width) => at(found.posterior.mean + width * found.posterior.sd));
      const pairs = [[x(-ends), low[0]], [x(ends), low[1]], [x(ends), high[1]], [x(-ends), high[0]]];
      layer.append(node("polygon", { points: points(pairs), style: `fill: ${colour.posterior}; fill-opacity: 0.22` }));
    }
    const lines = [
      ["prior", "shared weight θ", THETA],
      ["likelihood", "ML estimate", found.likelihood.mean],
      ["posterior", "mode", found.mode],
      ["path", "several steps", found.severalSteps],
      ["step", "one step", found.oneStep],
    ].filter(([key]) => shown[key]);
    for (const [key, , slope] of lines) {
      const [y1, y2] = at(slope);
      layer.append(node("line", { x1: x(-ends), x2: x(ends), y1, y2, style: line(key) }));
    }
    data.inputs.forEach((a, k) => {
      const outside = Math.abs(data.outputs[k]) > tops;
      const top = Math.sign(data.outputs[k]);
      const [cx, cy] = [x(a), y(outside ? top * tops : data.outputs[k])];
      const shape = outside
        ? node("path", { d: `M${cx - 6},${cy + top * 10}h12l-6,${-top * 9}z` })
        : node("circle", { cx, cy, r: 4.5 });
      shape.style.cssText = "fill: currentcolor; stroke: var(--md-default-bg-color, Canvas); stroke-width: 1.5px";
      layer.append(shape);
    });
    const slopes = lines.map(([, name, slope]) => `${name} ${digits(slope)}`).join(", ");
    svg.setAttribute("aria-label", `${data.inputs.length} points; slopes: ${slopes}`);
  }

  function describe(found) {
    const s = found.sharpness;
    const kind = regime(s);
    const words = {
      fits: "✓ At most 1: the step fits. It stops before the maximum-likelihood (ML) estimate and lands nearer to the "
        + "mode than it began.",
      passes: "▲ Above 1: the step passes the maximum-likelihood (ML) estimate and lands further from the mode than it "
        + "began. No implied prior exists. The loss of the neighbours is still lower than at θ.",
      overshoots: "✕ Above 2: overshoot. The step lands further from the mode and from the maximum-likelihood (ML) "
        + "estimate than it began: the loss of the neighbours is higher than at θ.",
    };
    const steps = Math.abs(found.factor) < 1 ? "converge to the mode." : "diverge: they need η < 2τ² / (1 + τ²λ).";
    element("verdict").className = `verdict ${kind}`;
    element("sharpness").textContent = `${digits(tau() ** 2)} · ${digits(found.curvature)} = ${digits(s)}`;
    element("needle").style.left = `${Math.min(s / 4, 1) * 100}%`;
    for (const [id, text] of [
      ["status", words[kind]],
      ["convergence", `Several steps of size η ${steps}`],
    ]) {
      if (element(id).textContent !== text) element(id).textContent = text; // screen readers announce changes only
    }
  }

  function list(found, data) {
    const d = digits;
    const sign = (value) => (value < 0 ? `(${d(value)})` : d(value));
    const [t, s2, K] = [tau(), `${d(state.sigma)}²`, state.neighbours];
    const N = "<sub>N</sub>";
    const s = found.sharpness;
    const miss = found.oneStep - found.mode;
    const rows = [
      ["Prior variance", "τ² = α / K", `${d(alphaOf(t, K))} / ${K}`, d(t * t)],
      ["Sum of squares", "Σ a²", `Σ over the ${K} points below`, d(found.squares)],
      ["Sum of products", "Σ a y", `Σ over the ${K} points below`, d(found.products)],
      ["Curvature", "H = λ = Σ a² / σ²", `${d(found.squares)} / ${s2}`, d(found.curvature)],
      ["Sharpness", "τ²λ", `${d(t * t)} · ${d(found.curvature)}`, d(s)],
      ["Gradient at θ", `g = ∇ℓ${N}(θ) = (θ Σ a² − Σ a y) / σ²`,
        `(${d(THETA)} · ${d(found.squares)} − ${sign(found.products)}) / ${s2}`, d(found.slope)],
      ["ML estimate", "Σ a y / Σ a²", `${d(found.products)} / ${d(found.squares)}`, d(found.likelihood.mean)],
      ["SD of the likelihood", "1 / √H", `1 / √${d(found.curvature)}`, d(found.likelihood.sd)],
      ["One step", "θ<sub>1</sub> = θ − τ² g", `${d(THETA)} − ${d(t * t)} · ${sign(found.slope)}`, d(found.oneStep)],
      ["Posterior precision", "Λ = 1 / τ² + H", `1 / ${d(t * t)} + ${d(found.curvature)}`, d(found.precision)],
      ["Mode (MAP)", "m = θ − g / Λ", `${d(THETA)} − ${sign(found.slope)} / ${d(found.precision)}`, d(found.mode)],
      ["SD of the posterior and of Laplace", "1 / √Λ", `1 / √${d(found.precision)}`, d(found.posterior.sd)],
      ["Factor of several steps", "f = 1 − (η / τ²)(1 + τ²λ)",
        `1 − ${d(state.fraction)} · (1 + ${d(s)})`, d(found.factor)],
      ["Several steps", "m + f<sup>T</sup> (θ − m)",
        `${d(found.mode)} + ${sign(found.factor)}<sup>${state.steps}</sup> · (${d(THETA)} − ${sign(found.mode)})`,
        d(found.severalSteps)],
      ["Variance of the implied prior", "τ² / (1 − τ²λ)", `${d(t * t)} / (1 − ${d(s)})`,
        found.implied ? d(found.implied.sd ** 2) : "none: τ²λ ≥ 1"],
      ["Loss at θ, nats",
        `ℓ${N}(θ) = Σ (y − a θ)² / 2σ² + ½ K log 2πσ²`, `Σ over the ${K} points below`, d(found.lossBefore)],
      ["Loss after the one step, nats", `ℓ${N}(θ<sub>1</sub>) = ℓ${N}(θ) − τ² g² (1 − ½ τ²λ)`,
        `${d(found.lossBefore)} − ${d(t * t)} · ${sign(found.slope)}² · (1 − ½ · ${d(s)})`, d(found.lossAfter)],
      ["KL(Laplace ‖ posterior), nats", "½ Λ (θ<sub>1</sub> − m)²",
        `½ · ${d(found.precision)} · ${sign(miss)}²`, d(found.divergence)],
      ["Log evidence, nats", `log p(N) = −ℓ${N}(θ) + g² / 2Λ − ½ log(1 + τ²λ)`,
        `−${sign(found.lossBefore)} + ${sign(found.slope)}² / (2 · ${d(found.precision)}) − ½ log(1 + ${d(s)})`,
        d(found.logEvidence)],
    ];
    const html = (cells) => `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
    element("numbers").innerHTML = rows.map(html).join("");
    element("data").innerHTML = data.inputs.map((a, k) => html([k + 1, d(a), d(data.outputs[k])])).join("");
    element("slope").textContent = d(data.slope);
  }

  function setSliders() {
    const [low, high] = RANGES[state.keep].map(Math.log10);
    Object.assign(element("strength"), { min: low.toFixed(2), max: high.toFixed(2) });
    element("strength").value = Math.log10(state.strength);
    for (const name of ["neighbours", "sigma", "steps", "fraction", "seed"]) element(name).value = state[name];
    element("keep-tau").checked = state.keep === "tau";
    element("keep-alpha").checked = state.keep === "alpha";
  }

  function update() {
    const data = draw(state.seed, state.neighbours, state.sigma);
    const found = infer({ theta: THETA, tau: tau(), ...state, ...data });
    const shown = Object.fromEntries(CURVES.map(({ key }) => [key, element("curves").elements[key].checked]));
    const alpha = alphaOf(tau(), state.neighbours);
    const [first, second] = [`τ = ${digits(tau())}`, `α = ${digits(alpha)}`];
    element("strength-label").textContent = state.keep === "tau" ? "Prior SD τ" : "Paper’s step size α";
    element("strength-value").textContent = state.keep === "tau" ? `${first}, ${second}` : `${second}, ${first}`;
    element("strength").setAttribute("aria-valuetext", element("strength-value").textContent);
    for (const name of ["neighbours", "steps"]) element(`${name}-value`).textContent = state[name];
    for (const name of ["sigma", "fraction"]) element(`${name}-value`).textContent = state[name].toFixed(2);
    drawWeights(found, shown);
    drawPoints(found, data, shown);
    describe(found);
    list(found, data);
  }

  function keep(which) {
    const now = tau();
    state.keep = which;
    state.strength = which === "tau" ? now : alphaOf(now, state.neighbours);
    const [low, high] = RANGES[which];
    state.strength = Math.min(high, Math.max(low, state.strength));
    setSliders();
    update();
  }

  function show(preset) {
    const { seed } = state;
    Object.assign(state, START, { seed });
    const { curvature } = infer({ theta: THETA, tau: 1, ...state, ...draw(seed, state.neighbours, state.sigma) });
    state.strength = Math.sqrt(PRESETS[preset] / curvature);
    setSliders();
    update();
  }

  for (const { key, text, on } of CURVES) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", name: key, checked: on });
    const sample = node("svg", { "aria-hidden": "true" });
    sample.append(node("line", { x1: 0, x2: 30, y1: 7, y2: 7, style: line(key, 3) }));
    label.append(box, sample, text);
    element("curves").append(label);
  }
  element("curves").addEventListener("change", update);
  element("strength").addEventListener("input", (event) => {
    state.strength = 10 ** Number(event.target.value);
    update();
  });
  for (const name of ["neighbours", "sigma", "steps", "fraction"]) {
    element(name).addEventListener("input", (event) => {
      state[name] = Number(event.target.value);
      update();
    });
  }
  element("seed").addEventListener("input", (event) => {
    state.seed = Math.abs(Math.trunc(Number(event.target.value))) % 10000;
    update();
  });
  element("seed").addEventListener("change", setSliders); // to what is used: a whole number below 10,000
  element("draw").addEventListener("click", () => {
    state.seed = (state.seed + 1) % 10000;
    setSliders();
    update();
  });
  element("keep-tau").addEventListener("change", () => keep("tau"));
  element("keep-alpha").addEventListener("change", () => keep("alpha"));
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", () => show(button.dataset.preset));
  }
  for (const form of document.querySelectorAll("#sliders form")) {
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  new ResizeObserver(() => requestAnimationFrame(update)).observe(element("sliders"));

  setSliders();
  update();
})();
