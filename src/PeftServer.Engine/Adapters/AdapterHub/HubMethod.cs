using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// The settings of one method of the <c>adapters</c> library, field for field those of its <c>config</c>. A union is several of them.
/// </summary>
public abstract record HubMethod
{
    /// <summary>What the library calls the method; null: a bottleneck.</summary>
    public string? Architecture { get; init; }

    /// <summary>The library seeds every layer anew with it. Read and kept; a job draws from its own seed.</summary>
    public int? InitWeightsSeed { get; init; }

    /// <summary>Throws <see cref="AdapterException"/> for settings that cannot be computed.</summary>
    internal abstract void Check();

    /// <summary>Puts the method's parts onto the model of <paramref name="adapter"/>.</summary>
    internal abstract void Attach(HubAdapter adapter);

    /// <summary>The methods in a complete config, those of a union one after another. Throws <see cref="AdapterException"/>.</summary>
    internal static IReadOnlyList<HubMethod> Read(JsonObject config)
    {
        if (ArchitectureOf(config) == "union")
        {
            return config["configs"] is JsonArray { Count: > 0 } several
                ? [.. several.SelectMany(one => Read(one as JsonObject ?? throw new AdapterException("configs", "must hold objects.")))]
                : throw new AdapterException("configs", "a union needs a list of configs.");
        }

        try
        {
            HubMethod method = ArchitectureOf(config) switch
            {
                null => config.Deserialize<BottleneckConfig>(PeftJson.Options)!,
                "lora" => config.Deserialize<HubLoraConfig>(PeftJson.Options)!,
                "prefix_tuning" => config.Deserialize<HubPrefixConfig>(PeftJson.Options)!,
                "reft" => config.Deserialize<ReftConfig>(PeftJson.Options)!,
                "prompt_tuning" => config.Deserialize<HubPromptConfig>(PeftJson.Options)!,
                var other => throw new AdapterException("architecture", $"'{other}' is not supported. {HubNames.Known}"),
            };
            method.Check();
            return [method];
        }
        catch (JsonException e)
        {
            throw new AdapterException(e.Path?.TrimStart('$', '.') is { Length: > 0 } field ? field : "config", e.Message);
        }
    }

    private static string? ArchitectureOf(JsonObject config) => config["architecture"] is JsonValue value && value.TryGetValue<string>(out var name) ? name : null;
}

/// <summary>Settings that can leave out layers.</summary>
internal interface ILeavesOut
{
    IReadOnlyList<int> LeaveOut { get; }
}
