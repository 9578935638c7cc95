using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>Adagrad (<see href="https://jmlr.org/papers/v12/duchi11a.html"/>): p ← p − lr·g/(√(Σ g²) + ε); decay is added to the gradient.</summary>
public sealed class Adagrad : Optimizer
{
    private readonly double _eps;
    private readonly Tensor _sum;

    public Adagrad(IReadOnlyList<ParameterGroup> groups, double eps = 1e-10)
        : base(groups) => (_eps, _sum) = (eps, FlatState("sum"));

    protected override void Update(ParameterSlice slice)
    {
        var gradient = slice.WeightDecay > 0 ? slice.Gradient.Plus(slice.Value.Times(slice.WeightDecay)) : slice.Gradient;
        var sum = slice.Of(_sum).Add(gradient.square());
        slice.Value.Add(gradient.div(sum.sqrt().Plus(_eps)), -slice.LearningRate);
    }
}
