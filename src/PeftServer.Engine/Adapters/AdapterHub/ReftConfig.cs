using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>ReFT: <see href="https://arxiv.org/abs/2404.03592">Wu et al. 2024</see>. Interventions on a few tokens' hidden states behind layers.</summary>
public sealed record ReftConfig : HubMethod
{
    /// <summary>"all", or the numbers of layers.</summary>
    public required JsonNode Layers { get; init; }

    /// <summary>Tokens at the start of a sequence.</summary>
    public required int PrefixPositions { get; init; }

    /// <summary>Tokens at its end.</summary>
    public required int SuffixPositions { get; init; }

    public required int R { get; init; }

    /// <summary>R has orthonormal rows: LoReFT.</summary>
    public required bool Orthogonality { get; init; }

    /// <summary>One intervention for both ends.</summary>
    public bool TiedWeights { get; init; }

    /// <summary>Whether Rx is subtracted; without it: DiReFT. The library does not save it and takes true on reload; we save it.</summary>
    public bool SubtractProjection { get; init; } = true;

    public double Dropout { get; init; } = 0.05;

    public string? NonLinearity { get; init; }

    /// <summary>The library's type of these weights; ours are float32.</summary>
    public string? Dtype { get; init; }

    /// <summary>Always true in the library's files.</summary>
    public bool OutputReft { get; init; } = true;

    internal bool Takes(int layer) => Layers is JsonArray list ? list.Any(one => one!.GetValue<int>() == layer) : true;

    internal override void Check()
    {
        if (Layers is not JsonArray && !(Layers.GetValueKind() is JsonValueKind.String && Layers.GetValue<string>() == "all"))
        {
            throw new AdapterException("layers", "must be \"all\" or a list of layer numbers.");
        }

        if (PrefixPositions < 0 || SuffixPositions < 0 || PrefixPositions + SuffixPositions == 0)
        {
            throw new AdapterException("prefix_positions", "and suffix_positions must not be negative, nor both 0.");
        }

        if (R < 1)
        {
            throw new AdapterException("r", "must be at least 1.");
        }

        if (NonLinearity is not null)
        {
            HubActivation.Check("non_linearity", NonLinearity);
        }

        HubActivation.CheckShare("dropout", Dropout);
    }

    internal override void Attach(HubAdapter adapter)
    {
        foreach (var site in adapter.Model.Modules().OfType<HiddenSite>().Where(site => site.Layer >= 0 && Takes(site.Layer)))
        {
            adapter.Attach(site, new ReftPart(this, site.Width), ".refts");
        }
    }
}
