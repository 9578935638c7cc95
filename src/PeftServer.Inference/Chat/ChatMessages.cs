using System.Text.Json;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Chat;

/// <summary>Checks messages and tools before a template sees them: what it says of a wrong one is about the template.</summary>
internal static class ChatMessages
{
    /// <summary>Adds what is wrong with a message at <paramref name="path"/>.</summary>
    public static void Check(JsonElement message, string path, List<ErrorDetail> faults)
    {
        if (message.ValueKind is not JsonValueKind.Object)
        {
            faults.Fault(path, $"'{path}' must be an object such as {{\"role\": \"user\", \"content\": \"…\"}}.");
            return;
        }

        if (!message.TryGetProperty("role", out var role) || role.ValueKind is not JsonValueKind.String)
        {
            faults.Fault($"{path}.role", $"'{path}.role' must say who speaks: system, user, assistant or tool.");
        }

        if (message.TryGetProperty("content", out var content) && content.ValueKind is not (JsonValueKind.String or JsonValueKind.Null))
        {
            CheckParts(content, $"{path}.content", faults);
        }
        else if (content.ValueKind is not JsonValueKind.String && !IsCall(message))
        {
            faults.Fault($"{path}.content", $"'{path}.content' is missing. Send a text; only an assistant's call of a tool does without.");
        }
    }

    /// <summary>Adds what is wrong with the functions that a template may show.</summary>
    public static void CheckTools(JsonElement? tools, List<ErrorDetail> faults)
    {
        if (tools is not { } given)
        {
            return;
        }

        if (given.ValueKind is not JsonValueKind.Array)
        {
            faults.Fault("tools", "'tools' must be a list of {\"type\": \"function\", \"function\": {\"name\": …}}.");
            return;
        }

        foreach (var (tool, i) in given.EnumerateArray().Select((tool, i) => (tool, i)))
        {
            if (Text(tool, "type") != "function" || !tool.TryGetProperty("function", out var function) || Text(function, "name") is null)
            {
                faults.Fault($"tools[{i}]", $"'tools[{i}]' must be {{\"type\": \"function\", \"function\": {{\"name\": …}}}}.");
            }
        }
    }

    private static void CheckParts(JsonElement parts, string path, List<ErrorDetail> faults)
    {
        if (parts.ValueKind is not JsonValueKind.Array)
        {
            faults.Fault(path, $"'{path}' must be a text or a list of parts.");
            return;
        }

        foreach (var (part, i) in parts.EnumerateArray().Select((part, i) => (part, i)))
        {
            if (Text(part, "type") is { } type && type is not ("text" or "refusal"))
            {
                faults.Add(new ErrorDetail($"'{path}[{i}]' is of the type '{ForeignText.Clean(type, 40)}'; this server reads text alone.", $"{path}[{i}]", "unsupported_value"));
            }
            else if (Text(part, "text") is null && Text(part, "refusal") is null)
            {
                faults.Fault($"{path}[{i}]", $"'{path}[{i}]' must be {{\"type\": \"text\", \"text\": …}}.");
            }
        }
    }

    private static bool IsCall(JsonElement message) =>
        Text(message, "role") == "assistant" && ((string[])["tool_calls", "function_call", "refusal"]).Any(name => message.TryGetProperty(name, out var value) && value.ValueKind is not JsonValueKind.Null);

    private static string? Text(JsonElement value, string name) =>
        value.ValueKind is JsonValueKind.Object && value.TryGetProperty(name, out var text) && text.ValueKind is JsonValueKind.String ? text.GetString() : null;
}
