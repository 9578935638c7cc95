using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data.Formats;

/// <summary>A row that is being read: its fields, and what is wrong with them by line and JSON path.</summary>
internal sealed class RowScope(JsonElement root, long line, FaultList faults)
{
    private readonly long _before = faults.Count;

    public JsonElement Root { get; } = root;

    public bool IsGood => faults.Count == _before;

    public void Fault(string path, string rule, string message, string fix) => faults.Add(line, path, rule, message, fix);

    /// <summary>The field, unless it is absent or null.</summary>
    public JsonElement? Field(string name) => Root.TryGetProperty(name, out var value) && value.ValueKind is not JsonValueKind.Null ? value : null;

    /// <summary>The first of these fields that is there, with its name.</summary>
    public (string Name, JsonElement Value)? FirstOf(params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
        {
            if (Field(name) is { } value)
            {
                return (name, value);
            }
        }

        return null;
    }

    /// <summary>A text that must be there; null, and a fault, where it is not.</summary>
    public string? Text(params ReadOnlySpan<string> names)
    {
        if (FirstOf(names) is not { } found)
        {
            Fault(names[0], "missing_field", $"The row lacks {names[0]}.", $"Add {names[0]}: a text.");
            return null;
        }

        return Text(found.Value, found.Name);
    }

    public string? Text(JsonElement value, string path)
    {
        if (value.ValueKind is JsonValueKind.String)
        {
            return value.GetString();
        }

        Fault(path, "wrong_type", $"{path} is {Kind(value)}.", "Make it a text.");
        return null;
    }

    /// <summary>A number, also as a text, which is how CSV has it.</summary>
    public double? Number(JsonElement value, string path)
    {
        if (value.ValueKind is JsonValueKind.Number)
        {
            return value.GetDouble();
        }

        if (value.ValueKind is JsonValueKind.String && double.TryParse(value.GetString(), System.Globalization.CultureInfo.InvariantCulture, out var number) && double.IsFinite(number))
        {
            return number;
        }

        Fault(path, "wrong_type", $"{path} is {Kind(value)}.", "Make it a number.");
        return null;
    }

    /// <summary>The texts of a list; numbers count as their digits where <paramref name="takesNumbers"/>.</summary>
    public IReadOnlyList<string>? Texts(JsonElement list, string path, bool takesNumbers = false)
    {
        if (list.ValueKind is not JsonValueKind.Array)
        {
            Fault(path, "wrong_type", $"{path} is {Kind(list)}.", "Make it a list.");
            return null;
        }

        var texts = new List<string>();
        foreach (var (item, i) in list.EnumerateArray().Select((item, i) => (item, i)))
        {
            if (item.ValueKind is JsonValueKind.String || (takesNumbers && item.ValueKind is JsonValueKind.Number))
            {
                texts.Add(item.ToString());
            }
            else
            {
                Fault($"{path}[{i}]", "wrong_type", $"{path}[{i}] is {Kind(item)}.", "Make it a text.");
            }
        }

        return texts;
    }

    public bool CheckMessages(params ReadOnlySpan<(JsonElement Messages, string Path)> lists)
    {
        var before = faults.Count;
        foreach (var (messages, path) in lists)
        {
            new MessageCheck(Fault).Check(messages, path);
        }

        return faults.Count == before;
    }

    /// <summary>A prompt and what follows it: both texts, or both lists of messages.</summary>
    public DatasetRow? Answer(JsonElement prompt, JsonElement answer, string name)
    {
        if (prompt.ValueKind is JsonValueKind.Array && answer.ValueKind is JsonValueKind.Array)
        {
            return CheckMessages((prompt, "prompt"), (answer, name))
                ? new ChatCompletionRow(
                    Chat([.. prompt.EnumerateArray().Concat(answer.EnumerateArray()).Select(MessageCheck.WithoutWeight)]), prompt.GetArrayLength())
                : null;
        }

        if (prompt.ValueKind is not JsonValueKind.String || answer.ValueKind is not JsonValueKind.String)
        {
            Fault("prompt", "wrong_type", $"prompt is {Kind(prompt)} and {name} is {Kind(answer)}.", "Make both texts, or both lists of messages.");
            return null;
        }

        if (answer.ValueEquals(""))
        {
            Fault(name, "nothing_to_learn", $"{name} is empty.", "Write what the model shall say, or leave the row out.");
        }

        return new TextRow(prompt.GetString()!, answer.GetString()!);
    }

    /// <summary>A chat of these messages with the row's tools, documents and template arguments.</summary>
    /// <param name="messages">The messages.</param>
    /// <param name="holder">The object that has the tools; absent: the row.</param>
    public Conversation Chat(IReadOnlyList<JsonElement> messages, JsonElement? holder = null)
    {
        var root = holder ?? Root;
        return new Conversation
        {
            Messages = messages,
            Tools = Tools(root),
            Documents = root.TryGetProperty("documents", out var documents) && documents.ValueKind is JsonValueKind.Array ? documents : null,
            TemplateArguments = root.TryGetProperty("chat_template_kwargs", out var arguments) && arguments.ValueKind is JsonValueKind.Object
                ? arguments.EnumerateObject().GroupBy(p => p.Name).ToDictionary(g => g.Key, g => g.Last().Value)
                : null,
        };
    }

    /// <summary>A list of tools; also as a text of JSON, which is how columnar formats carry it.</summary>
    private JsonElement? Tools(JsonElement root)
    {
        if (!root.TryGetProperty("tools", out var tools) || tools.ValueKind is JsonValueKind.Null)
        {
            return null;
        }

        if (tools.ValueKind is JsonValueKind.String && tools.GetString() is { Length: > 0 } text)
        {
            try
            {
                tools = JsonSerializer.Deserialize<JsonElement>(text);
            }
            catch (JsonException)
            {
                Fault("tools", "wrong_type", "tools is a text that is not JSON.", "Write the list of tools as JSON.");
                return null;
            }
        }

        if (tools.ValueKind is not JsonValueKind.Array)
        {
            Fault("tools", "wrong_type", $"tools is {Kind(tools)}.", "Make it a list of tools in OpenAI's form.");
            return null;
        }

        foreach (var (tool, i) in tools.EnumerateArray().Select((t, i) => (t, i)))
        {
            var function = tool.ValueKind is JsonValueKind.Object && tool.TryGetProperty("function", out var inner) ? inner : tool;
            if (function.ValueKind is not JsonValueKind.Object || !function.TryGetProperty("name", out var name) || name.ValueKind is not JsonValueKind.String)
            {
                Fault($"tools[{i}].function.name", "missing_field", "A tool needs a function with a name.", "Write {\"type\": \"function\", \"function\": {\"name\": …}}.");
            }
        }

        return tools.GetArrayLength() == 0 ? null : tools;
    }

    internal static string Kind(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null => "null",
        JsonValueKind.String => "a text",
        JsonValueKind.Number => "a number",
        JsonValueKind.True or JsonValueKind.False => "a truth value",
        JsonValueKind.Array => "a list",
        _ => "an object",
    };
}

/// <summary>Tells a fault: JSON path, rule, message, fix.</summary>
internal delegate void FaultReport(string path, string rule, string message, string fix);
