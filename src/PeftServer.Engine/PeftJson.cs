using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine;

/// <summary>
/// The one JSON dialect: on the wire, in jsonb columns, in files beside checkpoints. Names are snake_case as in PEFT,
/// TrainingArguments and the OpenAI API; a misspelt field is an error, not a default.
/// </summary>
public static class PeftJson
{
    public static JsonSerializerOptions Options { get; } = Frozen(new JsonSerializerOptions());

    /// <summary>The same, laid out for people: two spaces, as Hugging Face writes its files.</summary>
    public static JsonSerializerOptions Indented { get; } = Frozen(new JsonSerializerOptions { WriteIndented = true });

    public static JsonSerializerOptions Configure(JsonSerializerOptions options)
    {
        options.PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower;
        options.AllowOutOfOrderMetadataProperties = true; // jsonb sorts keys, so "peft_type" does not come first
        options.UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow; // "lora_aplha": 8 is a mistake
        options.Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping; // text stays readable; nothing here is HTML
        options.Converters.Add(new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower));
        return options;
    }

    private static JsonSerializerOptions Frozen(JsonSerializerOptions options)
    {
        Configure(options).MakeReadOnly(populateMissingResolver: true);
        return options;
    }
}
