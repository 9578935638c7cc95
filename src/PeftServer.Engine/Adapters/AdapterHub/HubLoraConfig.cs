using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// The library's LoRA, and what it makes of the same settings: (IA)³ (<c>composition_mode: scale</c>), VeRA (<c>vera_d</c>), DoRA.
/// </summary>
public sealed record HubLoraConfig : HubMethod, ILeavesOut
{
    /// <summary>On projections of attention, those that <see cref="AttnMatrices"/> names.</summary>
    public bool SelfattnLora { get; init; } = true;

    /// <summary>On the first projection of the feed-forward block; in Llama's family it is down_proj.</summary>
    public bool IntermediateLora { get; init; }

    /// <summary>On the last projection of the feed-forward block; in Llama's family it is up_proj.</summary>
    public bool OutputLora { get; init; }

    public IReadOnlyList<int> LeaveOut { get; init; } = [];

    public int R { get; init; } = 8;

    /// <summary>The update is scaled by alpha / r; where there is a gate, by the gate instead.</summary>
    public double Alpha { get; init; } = 8;

    public double Dropout { get; init; }

    /// <summary>Of q, k, v.</summary>
    public IReadOnlyList<string> AttnMatrices { get; init; } = ["q", "v"];

    /// <summary>"add" or "scale".</summary>
    public string CompositionMode { get; init; } = "add";

    /// <summary>How weights start: lora, bert, ia3, vera.</summary>
    public string InitWeights { get; init; } = "lora";

    public bool UseGating { get; init; }

    public bool UseDora { get; init; }

    public double? VeraD { get; init; }

    public double? VeraB { get; init; }

    /// <summary>The library's type of these weights; ours are float32.</summary>
    public string? Dtype { get; init; }

    [JsonIgnore]
    internal bool Scales => CompositionMode == "scale";

    [JsonIgnore]
    internal double Scale => Scales ? Alpha : Alpha / R;

    internal override void Check()
    {
        if (CompositionMode is not ("add" or "scale"))
        {
            throw new AdapterException("composition_mode", $"'{CompositionMode}' is unknown. Use add or scale.");
        }

        if (R < 1 || (Scales && R != 1))
        {
            throw new AdapterException("r", Scales ? "must be 1 with composition_mode \"scale\"." : "must be at least 1.");
        }

        if (Scales && (UseDora || VeraD is not null || Dropout > 0))
        {
            throw new AdapterException("composition_mode", "\"scale\" goes with neither use_dora, vera_d nor dropout.");
        }

        if (AttnMatrices.FirstOrDefault(name => name is not ("q" or "k" or "v")) is { } unknown)
        {
            throw new AdapterException("attn_matrices", $"'{unknown}' is unknown. Use q, k and v.");
        }

        if (InitWeights is not ("lora" or "bert" or "ia3" or "vera"))
        {
            throw new AdapterException("init_weights", $"'{InitWeights}' is unknown. Use lora, bert, ia3 or vera.");
        }

        HubActivation.CheckShare("dropout", Dropout);
    }

    internal override void Attach(HubAdapter adapter)
    {
        foreach (var (site, matrices) in Targets(adapter))
        {
            var part = matrices.Length > 0 ? (HubProjectionPart)new FusedLora(this, site, matrices)
                : Scales ? new HubIa3(this, site)
                : new HubLora(this, site, VeraD is null ? null : VeraShared.Attach(this, site, adapter));
            adapter.Attach(site, part, "loras");
        }
    }

    /// <summary>The projections, and for one that makes q, k and v at once which of them (by number).</summary>
    private IEnumerable<(Projection Site, int[] Matrices)> Targets(HubAdapter adapter)
    {
        var names = adapter.Architecture;
        foreach (var site in adapter.Model.Sites().OfType<Projection>())
        {
            if (adapter.LayerOf(site) is not { } layer || LeaveOut.Contains(layer))
            {
                continue;
            }

            if (SelfattnLora && names.Query == names.Key && names.IsNamed(site, names.Query))
            {
                yield return (site, [.. Enumerable.Range(0, 3).Where(i => AttnMatrices.Contains("qkv"[i].ToString()))]);
            }
            else if ((SelfattnLora && names.Matrix(site) is { } matrix && AttnMatrices.Contains(matrix))
                || (IntermediateLora && names.IsNamed(site, names.Intermediate)) || (OutputLora && names.IsNamed(site, names.Output)))
            {
                yield return (site, []);
            }
        }
    }
}
