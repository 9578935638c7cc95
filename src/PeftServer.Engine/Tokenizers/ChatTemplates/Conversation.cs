using System.Text.Json;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>What a chat template renders: messages and what goes with them, as the JSON they came as.</summary>
public sealed record Conversation
{
    /// <summary>Objects with <c>role</c> and <c>content</c>, and what else the template reads (<c>tool_calls</c>, <c>name</c>, …).</summary>
    public required IReadOnlyList<JsonElement> Messages { get; init; }

    /// <summary>A list of tools in OpenAI's form.</summary>
    public JsonElement? Tools { get; init; }

    /// <summary>A list of documents, for templates that take them.</summary>
    public JsonElement? Documents { get; init; }

    /// <summary>More variables of the template, as in transformers' <c>chat_template_kwargs</c>: <c>enable_thinking</c> …</summary>
    public IReadOnlyDictionary<string, JsonElement>? TemplateArguments { get; init; }

    /// <summary>A chat of plain texts.</summary>
    public static Conversation Of(params ReadOnlySpan<(string Role, string Content)> messages)
    {
        var list = new List<JsonElement>(messages.Length);
        foreach (var (role, content) in messages)
        {
            list.Add(JsonSerializer.SerializeToElement(new Dictionary<string, string> { ["role"] = role, ["content"] = content }));
        }

        return new Conversation { Messages = list };
    }

    /// <summary>The role of message <paramref name="index"/>; empty where it has none.</summary>
    internal string RoleOf(int index) =>
        Messages[index].ValueKind is JsonValueKind.Object && Messages[index].TryGetProperty("role", out var role) && role.ValueKind is JsonValueKind.String
            ? role.GetString()!
            : "";
}
