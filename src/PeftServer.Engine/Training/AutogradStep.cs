using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training;

/// <summary>The plain tier: every architecture, every method, any device.</summary>
internal sealed class AutogradStep(CausalLanguageModel model, Adapter adapter) : ITrainingStep
{
    public string Description => "plain tensor code under autograd";

    public (Tensor Loss, Tensor Correct) ForwardBackward(SftBatch batch, double scale, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        using var factor = scale.ToScalar();
        var (sum, correct) = SftLoss.Compute(model, [adapter], batch, dropout);
        sum.mul(factor).backward();
        return (sum.detach().MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }

    public void AdapterChanged()
    {
    }

    public void Dispose()
    {
    }
}
