using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>The plain tier: every architecture, every method, any device.</summary>
internal sealed class AutogradStep(CausalLanguageModel model, Adapter adapter, SftSettings? settings = null) : ITrainingStep
{
    public string Description => "plain tensor code under autograd";

    public (Tensor Loss, Tensor Correct) ForwardBackward(SftBatch batch, double scale, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        using var factor = scale.ToScalar();
        var (sum, correct) = SftLoss.Compute(model, [adapter], batch, dropout, settings);
        GradientCheckpoints.Backward(sum.mul(factor));
        return (sum.detach().MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }

    public void AdapterChanged()
    {
    }

    public void Dispose()
    {
    }
}
