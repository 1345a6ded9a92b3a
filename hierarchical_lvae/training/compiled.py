"""The meta-gradient as one graph of operators, compiled by Inductor.

Uncompiled, a step consists of hundreds of small kernels, and a GPU spends its time launching them. `make_fx` traces the
networks, the inner gradient, the local step and the gradient through that step as one sequence of operators. Inductor
then fuses the element-wise operators and the copies between them. Compilation takes about a minute on a GPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import random_state_kept

Function = Callable[..., Sequence[Tensor]]


class Compiled:
    """The compiled `Gradient` of all neighbourhoods at once.

    Args:
        run: the run whose loss is differentiated.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.function: Function | None = None

    def __call__(self, x: Tensor, x_N: Tensor) -> Tensor:
        """As for `Whole`: x (B, C, H, W), x_N (B, K, C, H, W) ↦ the loss, a scalar."""
        vae = self.run.vae
        arguments = [*vae.parameters(), *vae.buffers(), x.new_full((), self.run.elbo.beta), x, x_N]
        arguments = [argument.detach() for argument in arguments]
        if self.function is None:
            with random_state_kept():
                traced = _any_layout(make_fx(self._gradient)(*arguments))
            self.function = torch.compile(traced, dynamic=False, fullgraph=True, options={"fallback_random": True})
        with torch.no_grad():
            loss, *slopes = self.function(*arguments)
        for parameter, slope in zip(vae.parameters(), slopes, strict=True):
            parameter.grad = slope
        return loss

    def _gradient(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        vae, elbo = self.run.vae, self.run.elbo
        *values, beta, x, x_N = arguments
        names = [name for name, _ in [*vae.named_parameters(), *vae.named_buffers()]]
        number = len([*vae.parameters()])
        parameters = [value.detach().requires_grad_() for value in values[:number]]
        given = dict(zip(names, [*parameters, *values[number:]], strict=True))
        was, elbo.beta = elbo.beta, beta  # type: ignore[assignment]  # an input of the graph, not a constant in it
        try:
            with pyro.get_param_store().scope(), torch.enable_grad():
                pyro.clear_param_store()
                loss = functional_call(_Loss(self.run), {f"vae.{name}": v for name, v in given.items()}, (x, x_N))
                return loss.detach(), *torch.autograd.grad(loss, parameters)
        finally:
            elbo.beta = was


def _any_layout(traced: GraphModule) -> GraphModule:
    """Replace views by reshapes: the compiler can expect another layout than the traced convolutions returned."""
    for node in traced.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    traced.recompile()
    return traced


class _Loss(nn.Module):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.vae = run, run.vae

    def forward(self, x: Tensor, x_N: Tensor) -> Any:
        vae = self.vae
        return self.run.elbo.differentiable_loss(vae.model, vae.guide, x, x_N) / len(x)
