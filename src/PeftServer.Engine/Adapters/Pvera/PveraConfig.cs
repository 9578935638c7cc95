using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Pvera;

/// <summary>
/// PVeRA: VeRA whose inner activations are drawn from a normal distribution with a trained mean and variance.
/// <see href="https://arxiv.org/abs/2512.07703">The paper</see>.
/// </summary>
public sealed record PveraConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the shared projections, from 1 to 65536.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 256;

    /// <summary>Seed of the shared projections.</summary>
    public long ProjectionPrngKey { get; init; }

    /// <summary>Save the projections; false: draw them again from the seed.</summary>
    public bool SaveProjection { get; init; } = true;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double PveraDropout { get; init; }

    /// <summary>Where d starts.</summary>
    [Range(-1e6, 1e6)]
    public double DInitial { get; init; } = 0.1;

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or pvera_only.</summary>
    [AllowedValues("none", "all", "pvera_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Draw in inference too, so that answers differ from one time to the next. Merged, the adapter is its mean.</summary>
    public bool SampleAtInference { get; init; }

    /// <summary>Seed of the draws: every module draws from a generator of its own that starts here. Absent: the run's seed.</summary>
    public long? GeneratorSeed { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        PveraProjection.Create(this, sites);
}
