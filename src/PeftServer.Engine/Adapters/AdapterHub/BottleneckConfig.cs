using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// Settings of bottleneck adapters: <see href="https://arxiv.org/abs/1902.00751">Houlsby et al. 2019</see>,
/// <see href="https://arxiv.org/abs/2005.00247">Pfeiffer et al. 2020</see>, parallel ones
/// (<see href="https://arxiv.org/abs/2110.04366">He et al. 2021</see>) and
/// <see href="https://arxiv.org/abs/2106.04647">Compacter</see>. Defaults are those of the library's <c>BnConfig</c>.
/// </summary>
public sealed record BottleneckConfig : HubMethod, ILeavesOut
{
    /// <summary>Adapters behind the self-attention of each layer.</summary>
    public required bool MhAdapter { get; init; }

    /// <summary>Adapters behind the feed-forward block of each layer.</summary>
    public required bool OutputAdapter { get; init; }

    /// <summary>Hidden width over bottleneck: a number, or a number for each layer (as text) and <c>default</c>.</summary>
    public required JsonNode ReductionFactor { get; init; }

    /// <summary>Activation in the bottleneck: relu, gelu, gelu_orig (gelu in old files), swish, tanh, leakyrelu, …</summary>
    public required string NonLinearity { get; init; }

    /// <summary>The model's norm comes before the adapter too.</summary>
    public bool OriginalLnBefore { get; init; }

    /// <summary>The model's residual and norm come behind the adapter.</summary>
    public bool OriginalLnAfter { get; init; } = true;

    /// <summary>A norm of the adapter's own before it.</summary>
    public bool LnBefore { get; init; }

    /// <summary>A norm of the adapter's own behind it.</summary>
    public bool LnAfter { get; init; }

    /// <summary>How weights start: bert, mam_adapter, houlsby.</summary>
    public string InitWeights { get; init; } = "bert";

    /// <summary>Beside the block, on the stream before it, rather than behind it.</summary>
    public bool IsParallel { get; init; }

    /// <summary>A number, "learned" (one for the adapter) or "channel" (one for each channel).</summary>
    public JsonNode Scaling { get; init; } = 1.0;

    /// <summary>A learned gate in front of the adapter, one number for each sequence.</summary>
    public bool UseGating { get; init; }

    /// <summary>Where the skip connection starts: true, false, or "post_add".</summary>
    public JsonNode ResidualBeforeLn { get; init; } = true;

    /// <summary>The skip connection joins before <see cref="LnAfter"/>.</summary>
    public bool AdapterResidualBeforeLn { get; init; }

    /// <summary>Invertible adapters behind the embeddings: null or "nice".</summary>
    public string? InvAdapter { get; init; }

    public double? InvAdapterReductionFactor { get; init; }

    /// <summary>Adapters behind cross-attention too.</summary>
    public bool CrossAdapter { get; init; }

    public IReadOnlyList<int> LeaveOut { get; init; } = [];

    /// <summary>Chance that a value that comes out is dropped in training.</summary>
    public double Dropout { get; init; }

    /// <summary>Compacter: both projections are sums of Kronecker products.</summary>
    public bool PhmLayer { get; init; }

    public int PhmDim { get; init; } = 4;

    [JsonPropertyName("factorized_phm_W")]
    public bool FactorizedPhmW { get; init; } = true;

    [JsonPropertyName("shared_W_phm")]
    public bool SharedWPhm { get; init; }

    public bool SharedPhmRule { get; init; } = true;

    public bool FactorizedPhmRule { get; init; }

    public string PhmCInit { get; init; } = "normal";

    public double PhmInitRange { get; init; } = 1e-4;

    public bool LearnPhm { get; init; } = true;

    /// <summary>The library takes the same draw whatever stands here.</summary>
    public string HypercomplexNonlinearity { get; init; } = "glorot-uniform";

    public int PhmRank { get; init; } = 1;

    public bool PhmBias { get; init; } = true;

    /// <summary>Chance that a sequence skips the adapter in training.</summary>
    public double StochasticDepth { get; init; }

    /// <summary>The constant scale; null where it is learned.</summary>
    [JsonIgnore]
    internal double? ConstantScale => Scaling.GetValueKind() is JsonValueKind.Number ? Scaling.GetValue<double>() : null;

    [JsonIgnore]
    internal Skip Skip => ResidualBeforeLn.GetValueKind() switch
    {
        JsonValueKind.True => Skip.BeforeNorm,
        JsonValueKind.False => Skip.BehindNorm,
        _ => Skip.BehindSum,
    };

    /// <summary>Width of the bottleneck in a layer.</summary>
    internal int Width(int hidden, int layer)
    {
        var factor = ReductionFactor is JsonObject byLayer
            ? byLayer[layer.ToString(System.Globalization.CultureInfo.InvariantCulture)] ?? byLayer["default"]
                ?? throw new AdapterException("reduction_factor", $"says nothing about layer {layer}. Add it, or \"default\".")
            : ReductionFactor;
        return Math.Max(1, (int)Math.Floor(hidden / factor.GetValue<double>()));
    }

    internal bool StandsAt(Sublayer sublayer) => sublayer switch
    {
        Sublayer.SelfAttention => MhAdapter,
        Sublayer.CrossAttention => CrossAdapter,
        _ => OutputAdapter,
    };

    internal override void Check()
    {
        foreach (var factor in ReductionFactor is JsonObject byLayer ? byLayer.Select(entry => entry.Value) : [ReductionFactor])
        {
            if (factor?.GetValueKind() is not JsonValueKind.Number || factor.GetValue<double>() is not > 0)
            {
                throw new AdapterException("reduction_factor", "must be a number above 0, or an object with one for each layer and \"default\".");
            }
        }

        if (ConstantScale is null && !(Scaling.GetValueKind() is JsonValueKind.String && Scaling.GetValue<string>() is "learned" or "channel"))
        {
            throw new AdapterException("scaling", $"is {Scaling.ToJsonString()}. It must be a number, \"learned\" or \"channel\".");
        }

        if (Skip is Skip.BehindSum && !(ResidualBeforeLn.GetValueKind() is JsonValueKind.String && ResidualBeforeLn.GetValue<string>() == "post_add"))
        {
            throw new AdapterException("residual_before_ln", "must be true, false or \"post_add\".");
        }

        if (InvAdapter is not (null or "nice"))
        {
            throw new AdapterException("inv_adapter", $"'{InvAdapter}' is not supported{(InvAdapter == "glow" ? ": the library's GLOW block splits the wrong axis and always fails" : "")}. Use \"nice\".");
        }

        if (InitWeights is not ("bert" or "mam_adapter" or "houlsby") || (PhmLayer && InitWeights != "bert"))
        {
            throw new AdapterException("init_weights", PhmLayer ? "must be \"bert\" with phm_layer." : $"'{InitWeights}' is unknown. Use bert, mam_adapter or houlsby.");
        }

        HubActivation.Check("non_linearity", NonLinearity);
        HubActivation.CheckShare("dropout", Dropout);
        HubActivation.CheckShare("stochastic_depth", StochasticDepth);
    }

    internal override void Attach(HubAdapter adapter)
    {
        var (architecture, type) = (adapter.Architecture, adapter.Model.Config.ModelType);
        if (Skip is Skip.BehindSum && OriginalLnBefore && architecture.NormsBefore)
        {
            throw new AdapterException("residual_before_ln", $"\"post_add\" is for models with a norm behind their blocks; {type} has it before them. Use true or false.");
        }

        if (!OriginalLnAfter && architecture.IsPlugin)
        {
            throw new AdapterException("original_ln_after", $"cannot be false on {type}: the library adds its residual behind the adapter in any case.");
        }

        if (InvAdapter is not null && !adapter.Model.Modules().OfType<HiddenSite>().Any(site => site.Layer < 0))
        {
            throw new AdapterException("inv_adapter", $"is not supported on {type}. Leave it null.");
        }

        var shared = PhmLayer ? PhmShared.Attach(this, adapter) : null;
        foreach (var site in adapter.Model.Modules().OfType<ResidualSite>().Where(site => StandsAt(site.Sublayer) && !LeaveOut.Contains(site.Layer)))
        {
            adapter.Attach(site, Bottleneck.Create(this, site, adapter.Model.HiddenSize, shared));
        }

        if (InvAdapter is not null)
        {
            InvertiblePart.Attach(this, adapter);
        }
    }
}

/// <summary>Where a bottleneck's skip connection starts.</summary>
internal enum Skip
{
    /// <summary>What the block computed.</summary>
    BeforeNorm,

    /// <summary>Its sum with the stream.</summary>
    BehindSum,

    /// <summary>That sum, normed: what goes into the bottleneck.</summary>
    BehindNorm,
}
