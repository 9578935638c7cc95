using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>A linear map of tokens: y = x Wᵀ + b. The kind of site most methods attach to.</summary>
public abstract class Projection(int inFeatures, int outFeatures) : Site
{
    public int InFeatures { get; } = inFeatures;

    public int OutFeatures { get; } = outFeatures;

    /// <summary>The weight as [out, in], whatever the layout it is stored in. A view where that is possible.</summary>
    public abstract Tensor DenseWeight();

    /// <summary>Takes over a dense weight [out, in], for merging.</summary>
    public abstract void SetDenseWeight(Tensor weight);
}

/// <summary><c>torch.nn.Linear</c>: the weight is stored [out, in]. A head may share its weight with an embedding.</summary>
public sealed class Linear(int inFeatures, int outFeatures, bool hasBias = false, Weight? tied = null) : Projection(inFeatures, outFeatures)
{
    public readonly Weight weight = tied ?? new(outFeatures, inFeatures);
    public readonly Weight? bias = hasBias ? new(outFeatures) : null;

    public override Weight Weight => weight;

    public override Weight? Bias => bias;

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias) => F.linear(x, weight, bias); // [n, out]

    public override Tensor DenseWeight() => weight.Value.alias();

    public override void SetDenseWeight(Tensor weight) => this.weight.Set(weight);
}
