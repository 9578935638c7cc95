using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// Adapters of <see href="https://arxiv.org/abs/2311.11077">AdapterHub's <c>adapters</c> library</see>: Pfeiffer's and Houlsby's bottlenecks,
/// Compacter, prefixes, LoRA and its kin, ReFT, and unions of them. What they compute and how they are saved follows that library.
/// </summary>
public sealed record AdapterHubConfig : AdapterConfig
{
    /// <summary>
    /// The library's own config: an object with its fields, or one of its names, with overrides in brackets and unions:
    /// <c>"seq_bn"</c>, <c>"seq_bn[reduction_factor=16]"</c>, <c>"prefix_tuning|par_bn"</c>.
    /// </summary>
    public JsonNode? Config { get; init; } = "seq_bn";

    /// <summary>Name of the adapter; it is part of the keys in its file.</summary>
    [RegularExpression("^[A-Za-z0-9_-]{1,100}$", ErrorMessage = "name must be 1 to 100 letters, digits, _ or -.")]
    public string Name { get; init; } = "default";

    /// <summary>Every field, as the library resolves it. Throws <see cref="AdapterException"/>.</summary>
    [JsonIgnore]
    internal JsonObject Complete => HubNames.Complete(Config);

    public override Adapter CreateAdapter(PretrainedModel model) => new HubAdapter(this with { Config = Complete }, model);

    public override IEnumerable<ValidationResult> Validate()
    {
        string? fault = null;
        try
        {
            HubMethod.Read(Complete);
        }
        catch (AdapterException e)
        {
            fault = $"config.{e.Message}";
        }

        return fault is null ? [] : [new ValidationResult(fault, ["config"])];
    }
}
