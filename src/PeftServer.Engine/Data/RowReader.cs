using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>Reads one row and says what is wrong with it, by line and JSON path.</summary>
internal sealed class RowReader(long line, FaultList faults)
{
    private static readonly string[] RowFields =
        ["messages", "tools", "documents", "prompt", "completion", "text", "chosen", "rejected", "label", "parallel_tool_calls", "functions", "chat_template_kwargs", "task_id"];

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
            : root.TryGetProperty("chosen", out _) || root.TryGetProperty("rejected", out _) ? ReadPreference(root)
            : root.TryGetProperty("prompt", out var prompt) ? ReadPromptCompletion(root, prompt)
            : root.TryGetProperty("text", out var text) ? ReadText(text)
            : Unknown(root);
        var task = RowTask.Read(root, Fault);
        return IsGood ? row! with { Task = task } : null;
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

    private DatasetRow? ReadPromptCompletion(JsonElement root, JsonElement prompt)
    {
        if (!root.TryGetProperty("completion", out var completion))
        {
            Fault("completion", "missing_field", "A row with prompt needs completion too.", "Add completion: what the model shall say.");
            return null;
        }

        var row = ReadAnswer(root, prompt, completion, "completion");
        if (!root.TryGetProperty("label", out var label) || row is null)
        {
            return row;
        }

        if (label.ValueKind is JsonValueKind.True or JsonValueKind.False)
        {
            return new LabelledRow(row, label.GetBoolean());
        }

        Fault("label", "wrong_type", $"label is {Kind(label)}.", "Make it true for a good answer, false for a bad one.");
        return null;
    }

    private PairRow? ReadPreference(JsonElement root)
    {
        if (!root.TryGetProperty("chosen", out var chosen) || !root.TryGetProperty("rejected", out var rejected))
        {
            Fault("chosen", "missing_field", "A row of preferences needs both chosen and rejected.", "Add the one that is missing.");
            return null;
        }

        if (root.TryGetProperty("prompt", out var prompt))
        {
            return ReadAnswer(root, prompt, chosen, "chosen") is { } better && ReadAnswer(root, prompt, rejected, "rejected") is { } worse
                ? new PairRow(better, worse)
                : null;
        }

        if (chosen.ValueKind is JsonValueKind.String && rejected.ValueKind is JsonValueKind.String)
        {
            var (good, bad) = (chosen.GetString()!, rejected.GetString()!);
            var common = good.AsSpan().CommonPrefixLength(bad);
            common -= common > 0 && good[common - 1] == ' ' ? 1 : 0; // a space goes with the word behind it
            return new PairRow(new TextRow(good[..common], good[common..]), new TextRow(bad[..common], bad[common..]));
        }

        if (!CheckMessages((chosen, "chosen"), (rejected, "rejected")))
        {
            return null;
        }

        var (first, second) = (chosen.EnumerateArray().ToList(), rejected.EnumerateArray().ToList());
        var shared = first.Zip(second).TakeWhile(p => JsonElement.DeepEquals(p.First, p.Second)).Count();
        if (shared == 0 || shared == first.Count || shared == second.Count)
        {
            Fault("chosen", "no_prompt", "chosen and rejected must begin with the same messages and then differ.", "Put the prompt in front of both, or into prompt.");
            return null;
        }

        return new PairRow(new ChatCompletionRow(Conversation(root, first), shared), new ChatCompletionRow(Conversation(root, second), shared));
    }

    /// <summary>A prompt and what follows it: both texts, or both lists of messages.</summary>
    private DatasetRow? ReadAnswer(JsonElement root, JsonElement prompt, JsonElement answer, string name)
    {
        if (prompt.ValueKind is JsonValueKind.Array && answer.ValueKind is JsonValueKind.Array)
        {
            return CheckMessages((prompt, "prompt"), (answer, name))
                ? new ChatCompletionRow(
                    Conversation(root, [.. prompt.EnumerateArray().Concat(answer.EnumerateArray()).Select(MessageCheck.WithoutWeight)]), prompt.GetArrayLength())
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

    private bool CheckMessages(params ReadOnlySpan<(JsonElement Messages, string Path)> lists)
    {
        var before = faults.Count;
        foreach (var (messages, path) in lists)
        {
            new MessageCheck(Fault).Check(messages, path);
        }

        return faults.Count == before;
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
        var near = names.Select(n => (Name: n, Known: Spelling.Nearest(n, RowFields))).FirstOrDefault(p => p.Known is "messages" or "prompt" or "text" or "chosen" or "rejected");
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
