using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>A module that trains in full: PEFT's <c>modules_to_save</c>. It starts as a copy and stands in for the frozen one.</summary>
internal sealed class TrainableCopy : SiteAdapter
{
    private readonly Weight weight;
    private readonly Weight? bias;

    public TrainableCopy(Site site)
    {
        weight = new Weight([.. site.Weight.Shape]) { Trainable = true };
        bias = site.Bias is { } frozen ? new Weight([.. frozen.Shape]) { Trainable = true } : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        bias is null ? [(nameof(weight), weight)] : [(nameof(weight), weight), (nameof(bias), bias)];

    /// <summary>Whether a head that shares the weight follows.</summary>
    public bool HasTiedHead { get; init; }

    public override bool MergesIntoTied => HasTiedHead;

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var frozen = call.Site.Weight.Value;
        return call.Site.Compute(x, weight.Value.to(frozen.dtype), bias?.Value.to(frozen.dtype));
    }

    public override void Initialize(Site site, Generator generator)
    {
        weight.Set(site.Weight.Value.to(ScalarType.Float32, copy: true));
        bias?.Set(site.Bias!.Value.to(ScalarType.Float32, copy: true));
    }

    public override Tensor Merge(Site site, Tensor weight) => this.weight.Value;

    public override Tensor? MergeBias(Site site, Tensor? bias) => this.bias?.Value;

    /// <summary>The same weight at a head that shares it; the file holds it under the head's name too.</summary>
    internal sealed class TiedHead(TrainableCopy copy) : SiteAdapter
    {
        public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(weight), copy.weight)];

        public override bool MergesIntoTied => true;

        public override Tensor Forward(Tensor x, in SiteCall call)
        {
            var frozen = call.Site;
            return frozen.Compute(x, copy.weight.Value.to(frozen.Weight.Value.dtype), frozen.Bias?.Value);
        }

        public override void Initialize(Site site, Generator generator)
        {
        }

        public override Tensor Merge(Site site, Tensor weight) => copy.weight.Value;
    }
}
