using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>
/// OpenAI's forms of messages as templates expect them: the arguments of a tool call come as a text of JSON and templates
/// want the object; content may come in parts of text, which many templates cannot print.
/// </summary>
internal static class MessageForms
{
    private const string Probe = "probe-7f3a";

    public static Conversation Prepare(Conversation chat, bool joinsParts) => chat.Messages.Any(m => NeedsWork(m, joinsParts))
        ? chat with { Messages = [.. chat.Messages.Select(m => NeedsWork(m, joinsParts) ? Rewrite(m, joinsParts) : m)] }
        : chat;

    /// <summary>Whether a template prints content that comes in parts: found by trying, since templates do not say.</summary>
    public static bool PrintsParts(Func<Conversation, string> render)
    {
        var part = JsonSerializer.SerializeToElement(new { role = "user", content = new[] { new { type = "text", text = Probe } } });
        try
        {
            var text = render(new Conversation { Messages = [part] });
            return text.Contains(Probe, StringComparison.Ordinal) && !text.Contains($"'{Probe}'", StringComparison.Ordinal) && !text.Contains($"\"{Probe}\"", StringComparison.Ordinal);
        }
        catch (TemplateException)
        {
            return false;
        }
    }

    private static bool NeedsWork(JsonElement message, bool joinsParts) =>
        Calls(message).Any(c => ArgumentsOf(c) is { ValueKind: JsonValueKind.String }) || (joinsParts && IsTextParts(message));

    private static IEnumerable<JsonElement> Calls(JsonElement message) =>
        message.ValueKind is JsonValueKind.Object && message.TryGetProperty("tool_calls", out var calls) && calls.ValueKind is JsonValueKind.Array
            ? calls.EnumerateArray()
            : [];

    private static JsonElement? ArgumentsOf(JsonElement call) =>
        call.ValueKind is JsonValueKind.Object && call.TryGetProperty("function", out var function)
        && function.ValueKind is JsonValueKind.Object && function.TryGetProperty("arguments", out var arguments) ? arguments : null;

    private static bool IsTextParts(JsonElement message) =>
        message.ValueKind is JsonValueKind.Object && message.TryGetProperty("content", out var content) && content.ValueKind is JsonValueKind.Array
        && content.EnumerateArray().All(p => TextOf(p) is not null);

    private static string? TextOf(JsonElement part) =>
        part.ValueKind is JsonValueKind.Object && part.TryGetProperty("type", out var type) && type.ValueKind is JsonValueKind.String && type.ValueEquals("text")
        && part.TryGetProperty("text", out var text) && text.ValueKind is JsonValueKind.String ? JsonValues.Text(text) : null;

    private static JsonElement Rewrite(JsonElement message, bool joinsParts)
    {
        _ = JsonValues.Message(message, 0); // names what is no text, before anything else trips over it
        var copy = new JsonObject();
        foreach (var property in message.EnumerateObject())
        {
            copy[property.Name] = property.Name switch
            {
                "content" when joinsParts && IsTextParts(message) => string.Join('\n', property.Value.EnumerateArray().Select(TextOf)),
                "tool_calls" when property.Value.ValueKind is JsonValueKind.Array => WithParsedArguments(property.Value),
                _ => JsonSerializer.SerializeToNode(property.Value),
            };
        }

        return JsonSerializer.SerializeToElement(copy);
    }

    private static JsonArray WithParsedArguments(JsonElement calls)
    {
        var copy = new JsonArray();
        foreach (var element in calls.EnumerateArray())
        {
            var call = Copy(element);
            copy.Add(call);
            if ((call as JsonObject)?["function"] is JsonObject function && function["arguments"] is JsonValue value && value.TryGetValue<string>(out var text)
                && ParseObject(text) is { } arguments)
            {
                function["arguments"] = arguments;
            }
        }

        return copy;
    }

    /// <summary>A copy; of a field that is there twice, the last.</summary>
    private static JsonNode? Copy(JsonElement element)
    {
        if (element.ValueKind is not JsonValueKind.Object)
        {
            return JsonSerializer.SerializeToNode(element);
        }

        var copy = new JsonObject();
        foreach (var property in element.EnumerateObject())
        {
            copy[property.Name] = Copy(property.Value);
        }

        return copy;
    }

    private static JsonObject? ParseObject(string text)
    {
        try
        {
            return JsonNode.Parse(text) as JsonObject;
        }
        catch (JsonException)
        {
            return null; // a text that is no object stays a text
        }
    }
}
