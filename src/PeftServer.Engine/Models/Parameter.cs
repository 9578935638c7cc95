using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A weight that a module holds without being one of the layers that methods know: the experts of a layer, a router. Methods that
/// name parameters (LoRA's <c>target_parameters</c>) change the weight itself: their x is the weight, once a forward pass.
/// </summary>
public sealed class Parameter(params long[] shape) : Site
{
    private readonly Weight _weight = new(shape);

    public override Weight Weight => _weight;

    /// <summary>Path of the module that holds it.</summary>
    public string ModulePath => Path[..Math.Max(0, Path.LastIndexOf('.'))];

    /// <summary>Its name in that module.</summary>
    public string ParameterName => Path[(Path.LastIndexOf('.') + 1)..];

    // The checkpoint knows the weight by the site's own path.
    public override IEnumerable<(string Name, Weight Weight)> OwnWeights() => [("", _weight)];

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias) => weight.alias();

    /// <summary>The weight as it stands, to be changed by adapters.</summary>
    public override Tensor Frozen(Tensor x) => x.alias();

    /// <summary>The weight under the adapters of one run of tokens.</summary>
    internal Tensor Under(AdapterRun run, ForwardBatch batch) => ForwardRun(_weight.Value, batch, run);
}
