using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Data.Formats;

namespace PeftServer.Engine.Data;

/// <summary>Checks a list of chat messages in OpenAI's form.</summary>
internal sealed class MessageCheck(FaultReport fault)
{
    private static readonly string[] Roles = ["system", "developer", "user", "assistant", "tool", "function"];
    private static readonly string[] Fields =
        ["role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal", "reasoning_content"];

    public void Check(JsonElement messages, string path)
    {
        if (messages.ValueKind is not JsonValueKind.Array)
        {
            fault(path, "wrong_type", $"{path} is {RowScope.Kind(messages)}.", "Make it a list of messages.");
            return;
        }

        if (messages.GetArrayLength() == 0)
        {
            fault(path, "no_messages", $"{path} is empty.", "Add messages, or leave the row out.");
            return;
        }

        var i = 0;
        foreach (var message in messages.EnumerateArray())
        {
            CheckMessage(message, $"{path}[{i++}]");
        }
    }

    /// <summary>0 where the message is not to be learnt, else 1.</summary>
    public static int Weight(JsonElement message) =>
        message.TryGetProperty("weight", out var weight) && weight.ValueKind is JsonValueKind.Number && weight.GetDouble() == 0 ? 0 : 1;

    /// <summary>The message as a template shall see it: weights are the trainer's.</summary>
    public static JsonElement WithoutWeight(JsonElement message)
    {
        if (!message.TryGetProperty("weight", out _))
        {
            return message;
        }

        var copy = JsonObject.Create(message)!;
        copy.Remove("weight");
        return JsonSerializer.SerializeToElement(copy);
    }

    private void CheckMessage(JsonElement message, string path)
    {
        if (message.ValueKind is not JsonValueKind.Object)
        {
            fault(path, "wrong_type", $"The message is {RowScope.Kind(message)}.", "Write {\"role\": …, \"content\": …}.");
            return;
        }

        var names = new HashSet<string>(StringComparer.Ordinal);
        foreach (var property in message.EnumerateObject())
        {
            if (!names.Add(property.Name))
            {
                fault($"{path}.{property.Name}", "duplicate_field", $"{property.Name} is there twice.", "Leave one of them out.");
            }
            else if (!Fields.Contains(property.Name) && Spelling.Nearest(property.Name, Fields) is { } near)
            {
                fault($"{path}.{property.Name}", "unknown_field", $"A message has no field {property.Name}.", $"Did you mean {near}?");
            }
        }

        var role = CheckRole(message, path);
        CheckContent(message, path, role);
        CheckWeight(message, path, role);
        CheckToolCalls(message, path);
    }

    private string? CheckRole(JsonElement message, string path)
    {
        if (!message.TryGetProperty("role", out var role) || role.ValueKind is not JsonValueKind.String)
        {
            fault($"{path}.role", "missing_field", "The message has no role.", $"Add one of {string.Join(", ", Roles)}.");
            return null;
        }

        var name = role.GetString()!;
        if (!Roles.Contains(name))
        {
            var near = Spelling.Nearest(name, Roles);
            fault($"{path}.role", "unknown_role", $"There is no role \"{name}\".", near is null ? $"Use one of {string.Join(", ", Roles)}." : $"Did you mean {near}?");
        }

        return name;
    }

    private void CheckContent(JsonElement message, string path, string? role)
    {
        var has = message.TryGetProperty("content", out var content) && content.ValueKind is not JsonValueKind.Null;
        if (!has)
        {
            if (role != "assistant" || !(message.TryGetProperty("tool_calls", out _) || message.TryGetProperty("function_call", out _)))
            {
                fault($"{path}.content", "missing_field", "The message has no content.", "Add content; only an assistant that calls tools may go without.");
            }

            return;
        }

        if (content.ValueKind is JsonValueKind.Array)
        {
            CheckParts(content, $"{path}.content");
        }
        else if (content.ValueKind is not JsonValueKind.String)
        {
            fault($"{path}.content", "wrong_type", $"content is {RowScope.Kind(content)}.", "Make it a text.");
        }
    }

    private void CheckParts(JsonElement parts, string path)
    {
        var i = 0;
        foreach (var part in parts.EnumerateArray())
        {
            var at = $"{path}[{i++}]";
            if (part.ValueKind is not JsonValueKind.Object || !part.TryGetProperty("type", out var type) || type.ValueKind is not JsonValueKind.String)
            {
                fault(at, "wrong_type", "A part of content needs a type.", "Write {\"type\": \"text\", \"text\": …}.");
            }
            else if (!type.ValueEquals("text"))
            {
                fault($"{at}.type", "unsupported_content", $"Content of type \"{type.GetString()}\" cannot be learnt: models here read text.", "Leave the part out.");
            }
            else if (!part.TryGetProperty("text", out var text) || text.ValueKind is not JsonValueKind.String)
            {
                fault($"{at}.text", "missing_field", "A part of type text needs text.", "Add it.");
            }
        }
    }

    private void CheckWeight(JsonElement message, string path, string? role)
    {
        if (!message.TryGetProperty("weight", out var weight) || weight.ValueKind is JsonValueKind.Null)
        {
            return;
        }

        if (role != "assistant")
        {
            fault($"{path}.weight", "weight_not_allowed", $"A {role} message has a weight.", "Only assistant messages are learnt; leave the weight out.");
        }
        else if (weight.ValueKind is not JsonValueKind.Number || weight.GetDouble() is not (0 or 1))
        {
            fault($"{path}.weight", "wrong_weight", $"The weight is {weight.GetRawText()}.", "Make it 0 or 1.");
        }
    }

    private void CheckToolCalls(JsonElement message, string path)
    {
        if (!message.TryGetProperty("tool_calls", out var calls) || calls.ValueKind is JsonValueKind.Null)
        {
            return;
        }

        if (calls.ValueKind is not JsonValueKind.Array)
        {
            fault($"{path}.tool_calls", "wrong_type", $"tool_calls is {RowScope.Kind(calls)}.", "Make it a list.");
            return;
        }

        var i = 0;
        foreach (var call in calls.EnumerateArray())
        {
            var at = $"{path}.tool_calls[{i++}].function";
            if (call.ValueKind is not JsonValueKind.Object || !call.TryGetProperty("function", out var function) || function.ValueKind is not JsonValueKind.Object
                || !function.TryGetProperty("name", out var name) || name.ValueKind is not JsonValueKind.String)
            {
                fault(at, "missing_field", "A tool call needs a function with a name.", "Write {\"type\": \"function\", \"function\": {\"name\": …, \"arguments\": …}}.");
            }
        }
    }
}
