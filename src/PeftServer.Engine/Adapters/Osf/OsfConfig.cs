using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Osf;

/// <summary>
/// OSF: the weight's lower singular directions train in full, orthogonal to the upper ones, which stay.
/// <see href="https://arxiv.org/abs/2504.07097">Nayak et al. 2025</see>.
/// </summary>
public sealed record OsfConfig : TargetedConfig
{
    /// <summary>Directions that stay: a count from 1, or a share below 1 of all. Absent: half of them.</summary>
    [Range(1e-9, 65536.0)]
    public double? EffectiveRank { get; init; }

    /// <summary>The same for modules that a regular expression finds.</summary>
    public IReadOnlyDictionary<string, double>? RankPattern { get; init; }

    /// <summary>The directions that train start as the weight has them; false: at random, for tests.</summary>
    public bool? InitWeights { get; init; } = true;

    /// <summary>A field of PEFT's that says nothing.</summary>
    public JsonNode? TargetSvdConfig { get; init; }

    protected override ModuleSelector DefaultTargets(PretrainedModel model) => ModuleSelector.AllLinear;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new OsfProjection(this, site));

    public override IEnumerable<ValidationResult> Validate()
    {
        foreach (var (module, rank) in RankPattern ?? new Dictionary<string, double>())
        {
            if (rank is <= 0 or > 65536)
            {
                yield return new ValidationResult($"The rank of '{module}' is {rank}; it must be a count from 1, or a share between 0 and 1.", ["rank_pattern"]);
            }
        }
    }

    /// <summary>Directions that stay at a module.</summary>
    internal int RankAt(Projection site)
    {
        var least = Math.Min(site.InFeatures, site.OutFeatures);
        var wanted = EffectiveRank;
        foreach (var (pattern, rank) in RankPattern ?? new Dictionary<string, double>())
        {
            if (Regex.IsMatch(site.Path, pattern, RegexOptions.NonBacktracking))
            {
                wanted = rank;
                break;
            }
        }

        var count = wanted is { } value ? (int)(value < 1 ? least * value : Math.Min(least, value)) : least / 2;
        return count > 0 ? count : throw new AdapterException("effective_rank", $"{wanted} leaves no direction of {site.Path} as it is. Raise it.");
    }
}
