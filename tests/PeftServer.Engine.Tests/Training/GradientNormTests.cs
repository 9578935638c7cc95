using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Training;

public sealed class GradientNormTests
{
    /// <summary>One float32 sum over so many squares loses 0.03% of them; PEFT's norm of norms, tensor by tensor, does not.</summary>
    [Theory]
    [InlineData(3_000_000)]
    [InlineData(4096)]
    [InlineData(5000)]
    [InlineData(1)]
    public void ClipGradients_OfManyValues_GivesTheNormAsInDoublePrecision(int count)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(1);
        var weight = new Weight([count]) { Path = "weight" };
        weight.Set(zeros(count));
        weight.Value.requires_grad = true;
        using var optimizer = new Sgd([new ParameterGroup([weight], 1, 0)]);
        weight.Value.grad!.copy_(randn(count, generator: generator));
        var expected = Math.Sqrt(weight.Value.grad!.data<float>().ToArray().Sum(value => (double)value * value));

        var norm = optimizer.ClipGradients(0.5).item<float>();

        norm.ShouldBe((float)expected, (float)(1e-6 * expected));
        weight.Value.grad!.to(ScalarType.Float64).square().sum().sqrt().item<double>().ShouldBe(0.5 * Math.Min(1, expected / (expected + 1e-6)), 1e-6);
        weight.Unload();
    }
}
