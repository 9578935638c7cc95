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

    /// <summary>The same for a weight that is part of a wider matrix and is to stay there.</summary>
    public abstract void PlaceDenseWeight(Tensor weight);
}

/// <summary><c>torch.nn.Linear</c>: the weight is stored [out, in]. A head may share its weight with an embedding.</summary>
public sealed class Linear(int inFeatures, int outFeatures, bool hasBias = false, Weight? tied = null) : Projection(inFeatures, outFeatures)
{
    public Weight weight = tied ?? new(outFeatures, inFeatures);
    public readonly Weight? bias = hasBias ? new(outFeatures) : null;

    public override Weight Weight => weight;

    public override Weight? Bias => bias;

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias) => F.linear(x, weight, bias); // [n, out]

    public override Tensor DenseWeight() => weight.Value.alias();

    public override void SetDenseWeight(Tensor weight) => this.weight.Set(weight);

    public override void PlaceDenseWeight(Tensor weight) => this.weight.Set(weight);

    /// <summary>Gives the head a weight of its own, with the values of the one that it shares.</summary>
    internal void Untie()
    {
        var own = new Weight(OutFeatures, InFeatures) { Path = $"{Path}.weight" };
        own.Set(weight.Value.clone());
        weight = own;
    }
}

/// <summary>transformers' <c>Conv1D</c>: a linear map whose weight is stored [in, out], as GPT-2's checkpoints have it.</summary>
public sealed class Conv1D(int inFeatures, int outFeatures) : Projection(inFeatures, outFeatures)
{
    public readonly Weight weight = new(inFeatures, outFeatures);
    public readonly Weight bias = new(outFeatures);

    public override Weight Weight => weight;

    public override Weight Bias => bias;

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        return F.linear(x, weight.t(), bias).MoveToOuterDisposeScope(); // [n, out]
    }

    public override Tensor DenseWeight() => weight.Value.t();

    public override void SetDenseWeight(Tensor weight)
    {
        using var scope = NewDisposeScope();
        this.weight.Set(weight.t().contiguous().MoveToOuterDisposeScope());
    }

    public override void PlaceDenseWeight(Tensor weight)
    {
        using (weight)
        {
            this.weight.Set(weight.t());
        }
    }
}
