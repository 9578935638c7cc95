using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// The library's <see href="https://arxiv.org/abs/2101.00190">prefix tuning</see>: keys and values before those of every attention, by a
/// bottleneck from a table of vectors, or trained as they are. Tokens keep their positions.
/// </summary>
public sealed record HubPrefixConfig : HubMethod, ILeavesOut
{
    /// <summary>In the encoder of an encoder-decoder too.</summary>
    public bool EncoderPrefix { get; init; } = true;

    /// <summary>Before an encoder's text, for its decoder, too.</summary>
    public bool CrossPrefix { get; init; } = true;

    public IReadOnlyList<int> LeaveOut { get; init; } = [];

    /// <summary>Train keys and values themselves.</summary>
    public bool Flat { get; init; }

    public int PrefixLength { get; init; } = 30;

    /// <summary>Width of the bottleneck that makes them.</summary>
    public int BottleneckSize { get; init; } = 512;

    public string NonLinearity { get; init; } = "tanh";

    /// <summary>Supported as 0 only.</summary>
    public double Dropout { get; init; }

    /// <summary>A learned gate in front of the prefix, one number for each sequence.</summary>
    public bool UseGating { get; init; }

    /// <summary>One gate for keys and values.</summary>
    public bool SharedGating { get; init; } = true;

    internal override void Check()
    {
        if (PrefixLength < 1)
        {
            throw new AdapterException("prefix_length", "must be at least 1.");
        }

        if (BottleneckSize < 1)
        {
            throw new AdapterException("bottleneck_size", "must be at least 1.");
        }

        if (Dropout != 0)
        {
            throw new AdapterException("dropout", "is supported as 0 only for prefix_tuning.");
        }

        HubActivation.Check("non_linearity", NonLinearity);
    }

    internal override void Attach(HubAdapter adapter)
    {
        if (adapter.Architecture.IsPlugin || adapter.Model.Config.ModelType == "deberta-v2")
        {
            throw new AdapterException("architecture", $"prefix_tuning is not supported on {adapter.Model.Config.ModelType}. Use PEFT's PREFIX_TUNING, or another method.");
        }

        var places = adapter.Model.Sites().OfType<Projection>().Where(adapter.Architecture.MakesQueries)
            .Select(site => new AttentionPlace(site, adapter.Architecture.AttentionOf(site), adapter.LayerOf(site)!.Value))
            .Where(place => !LeaveOut.Contains(place.Layer) && Takes(place.Kind));
        foreach (var kind in places.GroupBy(place => place.Kind))
        {
            adapter.Attach(new HubPrefix(this, adapter, [.. kind]));
        }
    }

    private bool Takes(AttentionKind kind) => kind switch
    {
        AttentionKind.Encoder => EncoderPrefix,
        AttentionKind.Cross => CrossPrefix,
        _ => true,
    };
}

/// <summary>What an attention looks at, as the library tells them apart.</summary>
internal enum AttentionKind
{
    /// <summary>A decoder at itself, or the only stack that there is.</summary>
    Self,

    /// <summary>The encoder of an encoder-decoder at itself.</summary>
    Encoder,

    /// <summary>A decoder at its encoder's text.</summary>
    Cross,
}

/// <summary>The attention of a layer, by the projection that makes its queries.</summary>
internal sealed record AttentionPlace(Projection Queries, AttentionKind Kind, int Layer);
