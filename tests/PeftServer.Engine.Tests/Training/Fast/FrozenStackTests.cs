using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Fast;

namespace PeftServer.Engine.Tests.Training.Fast;

/// <summary>Products with stacked weights, however they are held, against the same products written down plainly.</summary>
public sealed class FrozenStackTests
{
    [Theory]
    [InlineData(BaseQuantization.None, 1e-5)]
    [InlineData(BaseQuantization.Nf4, 1e-5)]
    [InlineData(BaseQuantization.Fp8, 0.04)] // a factor of each product has three bits
    public void Products_AllWays_EqualThoseOfTheDecodedWeights(BaseQuantization kind, double tolerance)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var generator = new Generator(11);
        var sites = new[] { 64, 128 }.Select(rows => Site(rows, 192, kind, generator)).ToList();
        var decoded = cat([.. sites.Select(site => site.weight.Value)], 0); // [192, 192]
        using var stack = FrozenStack.Of(sites, 8, CPU, ScalarType.Float32, new TensorBlockKernels());
        stack.ScaledB.copy_(randn(192, 8, generator: generator));
        stack.A.copy_(randn(8, 192, generator: generator));
        var (x, u, grad) = (randn(30, 192, generator: generator), randn(30, 8, generator: generator), randn(30, 192, generator: generator));
        var expected = x.mm(decoded.t()).Plus(u.mm(stack.ScaledB.t()));

        var target = empty(30, 192);
        stack.Forward(cat([x, u], 1), target);
        var (dx, du) = stack.Backward(cat([grad, zeros(30, stack.Room)], 1));

        Distance(target, expected).ShouldBeLessThan(tolerance);
        Distance(stack.ForwardApart(x, u), expected).ShouldBeLessThan(tolerance);
        Distance(dx, grad.mm(decoded).Plus(grad.mm(stack.ScaledB).mm(stack.A))).ShouldBeLessThan(tolerance);
        Distance(du, grad.mm(stack.ScaledB)).ShouldBeLessThan(1e-5);
        sites.ForEach(site => site.weight.Unload());
    }

    private static Linear Site(int rows, int columns, BaseQuantization kind, Generator generator)
    {
        var site = new Linear(columns, rows);
        var drawn = randn([rows, columns], generator: generator).mul(linspace(0.1, 3, rows).unsqueeze(1));
        if (kind is BaseQuantization.None)
        {
            site.weight.Set(drawn);
        }
        else
        {
            site.weight.Set(PackedMatrix.Pack(drawn, kind));
        }

        return site;
    }

    private static double Distance(Tensor actual, Tensor expected) => actual.Minus(expected).norm().item<float>() / expected.norm().item<float>();
}
