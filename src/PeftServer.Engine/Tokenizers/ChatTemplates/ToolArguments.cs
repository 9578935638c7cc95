using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>
/// OpenAI sends the arguments of a tool call as a text of JSON; templates expect the object. Texts that are none stay texts.
/// </summary>
internal static class ToolArguments
{
    public static Conversation Parsed(Conversation chat) => chat.Messages.Any(HasTextArguments)
        ? chat with { Messages = [.. chat.Messages.Select(m => HasTextArguments(m) ? Parse(m) : m)] }
        : chat;

    private static bool HasTextArguments(JsonElement message) => Calls(message).Any(c => ArgumentsOf(c) is { ValueKind: JsonValueKind.String });

    private static IEnumerable<JsonElement> Calls(JsonElement message) =>
        message.ValueKind is JsonValueKind.Object && message.TryGetProperty("tool_calls", out var calls) && calls.ValueKind is JsonValueKind.Array
            ? calls.EnumerateArray()
            : [];

    private static JsonElement? ArgumentsOf(JsonElement call) =>
        call.ValueKind is JsonValueKind.Object && call.TryGetProperty("function", out var function)
        && function.ValueKind is JsonValueKind.Object && function.TryGetProperty("arguments", out var arguments) ? arguments : null;

    private static JsonElement Parse(JsonElement message)
    {
        var copy = JsonObject.Create(message)!;
        foreach (var call in copy["tool_calls"]!.AsArray())
        {
            if (call?["function"] is JsonObject function && function["arguments"] is JsonValue value && value.TryGetValue<string>(out var text)
                && ParseObject(text) is { } arguments)
            {
                function["arguments"] = arguments;
            }
        }

        return JsonSerializer.SerializeToElement(copy);
    }

    private static JsonObject? ParseObject(string text)
    {
        try
        {
            return JsonNode.Parse(text) as JsonObject;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
