using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>Reads one row and says what is wrong with it, by line and JSON path.</summary>
internal sealed class RowReader(long line, FaultList faults)
{
    private static readonly string[] RowFields =
        ["messages", "tools", "documents", "prompt", "completion", "text", "parallel_tool_calls", "functions", "chat_template_kwargs", "task_id"];

    private readonly long _before = faults.Count;

    private bool IsGood => faults.Count == _before;

    /// <summary>The row, or null where it has a fault.</summary>
    public DatasetRow? Read(JsonElement root)
    {
        if (root.ValueKind is not JsonValueKind.Object)
        {
            Fault("", "not_an_object", $"The row is {Kind(root)}, not an object.", "Write one JSON object a line.");
            return null;
        }

        if (!new TextCheck(Fault).AreWhole(root))
        {
            return null;
        }

        var row = root.TryGetProperty("messages", out var messages) ? ReadChat(root, messages)
            : root.TryGetProperty("prompt", out var prompt) ? ReadPair(root, prompt)
            : root.TryGetProperty("text", out var text) ? ReadText(text)
            : Unknown(root);
        return IsGood ? row : null;
    }

    private ChatRow? ReadChat(JsonElement root, JsonElement messages)
    {
        var check = new MessageCheck(Fault);
        check.Check(messages, "messages");
        if (!IsGood)
        {
            return null;
        }

        var list = messages.EnumerateArray().ToList();
        var trained = new HashSet<int>();
        for (var i = 0; i < list.Count; i++)
        {
            if (list[i].GetProperty("role").ValueEquals("assistant") && MessageCheck.Weight(list[i]) != 0)
            {
                trained.Add(i);
            }
        }

        if (trained.Count == 0)
        {
            Fault(
                "messages",
                "nothing_to_learn",
                "No assistant message is trained on.",
                "Add an assistant message, or give one of them weight 1.");
        }

        return new ChatRow(Conversation(root, [.. list.Select(MessageCheck.WithoutWeight)]), trained);
    }

    private DatasetRow? ReadPair(JsonElement root, JsonElement prompt)
    {
        if (!root.TryGetProperty("completion", out var completion))
        {
            Fault("completion", "missing_field", "A row with prompt needs completion too.", "Add completion: what the model shall say.");
            return null;
        }

        if (prompt.ValueKind is JsonValueKind.Array && completion.ValueKind is JsonValueKind.Array)
        {
            var check = new MessageCheck(Fault);
            check.Check(prompt, "prompt");
            check.Check(completion, "completion");
            return IsGood
                ? new ChatCompletionRow(
                    Conversation(root, [.. prompt.EnumerateArray().Concat(completion.EnumerateArray()).Select(MessageCheck.WithoutWeight)]), prompt.GetArrayLength())
                : null;
        }

        if (prompt.ValueKind is not JsonValueKind.String || completion.ValueKind is not JsonValueKind.String)
        {
            Fault(
                "prompt",
                "wrong_type",
                $"prompt is {Kind(prompt)} and completion is {Kind(completion)}.",
                "Make both texts, or both lists of messages.");
            return null;
        }

        if (completion.ValueEquals(""))
        {
            Fault("completion", "nothing_to_learn", "completion is empty.", "Write what the model shall say, or leave the row out.");
        }

        return new TextRow(prompt.GetString()!, completion.GetString()!);
    }

    private PlainTextRow? ReadText(JsonElement text)
    {
        if (text.ValueKind is JsonValueKind.String)
        {
            return new PlainTextRow(text.GetString()!);
        }

        Fault("text", "wrong_type", $"text is {Kind(text)}.", "Make it a text.");
        return null;
    }

    private Conversation Conversation(JsonElement root, IReadOnlyList<JsonElement> messages) => new()
    {
        Messages = messages,
        Tools = ReadTools(root),
        Documents = root.TryGetProperty("documents", out var documents) && documents.ValueKind is JsonValueKind.Array ? documents : null,
        TemplateArguments = root.TryGetProperty("chat_template_kwargs", out var arguments) && arguments.ValueKind is JsonValueKind.Object
            ? arguments.EnumerateObject().GroupBy(p => p.Name).ToDictionary(g => g.Key, g => g.Last().Value)
            : null,
    };

    /// <summary>A list of tools; also as a text of JSON, which is how columnar formats carry it.</summary>
    private JsonElement? ReadTools(JsonElement root)
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

    private DatasetRow? Unknown(JsonElement root)
    {
        var names = root.EnumerateObject().Select(p => p.Name).ToList();
        var near = names.Select(n => (Name: n, Known: Spelling.Nearest(n, RowFields))).FirstOrDefault(p => p.Known is "messages" or "prompt" or "text");
        Fault(
            near.Name ?? "",
            "unknown_format",
            names.Count == 0 ? "The row is empty." : $"The row has neither messages, nor prompt, nor text; it has {string.Join(", ", names.Take(8))}.",
            near.Known is { } known ? $"Did you mean {known}?" : "Write {\"messages\": [{\"role\": …, \"content\": …}, …]} or {\"prompt\": …, \"completion\": …}.");
        return null;
    }

    private void Fault(string path, string rule, string message, string fix) => faults.Add(line, path, rule, message, fix);

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
