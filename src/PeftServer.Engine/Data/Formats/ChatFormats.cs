using System.Text.Json;

namespace PeftServer.Engine.Data.Formats;

/// <summary>OpenAI's chats.</summary>
internal sealed class MessagesFormat() : RowFormat(DatasetFormat.Messages)
{
    public override IReadOnlyList<string> Fields { get; } = ["messages"];

    public override DatasetRow? Read(RowScope row)
    {
        if (row.Field("messages") is not { } messages)
        {
            row.Fault("messages", "missing_field", "The row lacks messages.", "Add a list of messages.");
            return null;
        }

        return Chat(row, messages, "messages");
    }

    /// <summary>A chat in which something is learnt.</summary>
    public static ChatRow? Chat(RowScope row, JsonElement messages, string path)
    {
        if (!row.CheckMessages((messages, path)))
        {
            return null;
        }

        var list = messages.EnumerateArray().ToList();
        var trained = Enumerable.Range(0, list.Count).Where(i => list[i].GetProperty("role").ValueEquals("assistant") && MessageCheck.Weight(list[i]) != 0).ToHashSet();
        if (trained.Count == 0)
        {
            row.Fault(path, "nothing_to_learn", "No assistant message is trained on.", "Add an assistant message, or give one of them weight 1.");
        }

        return new ChatRow(row.Chat([.. list.Select(MessageCheck.WithoutWeight)]), trained);
    }
}

/// <summary>ShareGPT's chats, in the names that its files have come to use for who speaks.</summary>
internal sealed class ShareGptFormat() : RowFormat(DatasetFormat.ShareGpt)
{
    private static readonly Dictionary<string, string> Roles = new(StringComparer.OrdinalIgnoreCase)
    {
        ["system"] = "system",
        ["human"] = "user",
        ["user"] = "user",
        ["gpt"] = "assistant",
        ["chatgpt"] = "assistant",
        ["assistant"] = "assistant",
        ["bot"] = "assistant",
        ["model"] = "assistant",
        ["tool"] = "tool",
        ["function"] = "tool",
        ["function_response"] = "tool",
        ["observation"] = "tool",
    };

    public override IReadOnlyList<string> Fields { get; } = ["conversations", "system"];

    public override DatasetRow? Read(RowScope row)
    {
        if (row.Field("conversations") is not { ValueKind: JsonValueKind.Array } conversations)
        {
            row.Fault("conversations", "wrong_type", "conversations is no list.", "Make it a list of {\"from\": …, \"value\": …}.");
            return null;
        }

        var messages = new List<Dictionary<string, object>>();
        if (row.Field("system") is { ValueKind: JsonValueKind.String } system && system.GetString() is { Length: > 0 } words)
        {
            messages.Add(new() { ["role"] = "system", ["content"] = words });
        }

        foreach (var (turn, i) in conversations.EnumerateArray().Select((turn, i) => (turn, i)))
        {
            if (Message(row, turn, $"conversations[{i}]") is { } message)
            {
                messages.Add(message);
            }
        }

        return row.IsGood ? MessagesFormat.Chat(row, JsonSerializer.SerializeToElement(messages), "conversations") : null;
    }

    private static Dictionary<string, object>? Message(RowScope row, JsonElement turn, string path)
    {
        if (turn.ValueKind is not JsonValueKind.Object)
        {
            row.Fault(path, "wrong_type", $"The turn is {RowScope.Kind(turn)}.", "Write {\"from\": \"human\", \"value\": …}.");
            return null;
        }

        var from = Text(turn, "from", "role");
        var value = Text(turn, "value", "content");
        if (from is null || !Roles.TryGetValue(from, out var role))
        {
            row.Fault($"{path}.from", from is null ? "missing_field" : "unknown_role", from is null ? "The turn does not say who speaks." : $"There is no speaker \"{from}\".", "Use system, human, gpt or tool.");
            return null;
        }

        if (value is null)
        {
            row.Fault($"{path}.value", "missing_field", "The turn says nothing.", "Add value: a text.");
            return null;
        }

        var message = new Dictionary<string, object> { ["role"] = role, ["content"] = value };
        if (turn.TryGetProperty("weight", out var weight) && weight.ValueKind is JsonValueKind.Number && role == "assistant")
        {
            message["weight"] = weight;
        }

        return message;
    }

    private static string? Text(JsonElement turn, string name, string other) =>
        (turn.TryGetProperty(name, out var value) || turn.TryGetProperty(other, out value)) && value.ValueKind is JsonValueKind.String ? value.GetString() : null;
}

/// <summary>
/// What is to be answered by the model and graded: a chat that ends before the assistant speaks, or a text. A row without any field for graders is taken for one
/// whose answer was forgotten, unless this format is named.
/// </summary>
internal sealed class PromptsFormat() : RowFormat(DatasetFormat.Prompts)
{
    private static readonly string[] Others = ["tools", "parallel_tool_calls", "functions", "documents", "chat_template_kwargs", "id", "system"];

    public override IReadOnlyList<string> Fields { get; } = ["prompt", "messages"];

    public override bool Recognises(JsonElement row)
    {
        var fields = row.EnumerateObject().Select(field => field.Name).ToHashSet();
        var isPrompt = fields.Contains("prompt") && !fields.Contains("completion") && !fields.Contains("chosen") && !fields.Contains("rejected");
        var isChat = row.TryGetProperty("messages", out var messages) && messages.ValueKind is JsonValueKind.Array
            && messages.EnumerateArray().All(message => !(message.ValueKind is JsonValueKind.Object && message.TryGetProperty("role", out var role) && role.ValueKind is JsonValueKind.String && role.ValueEquals("assistant")));
        return (isPrompt || isChat) && fields.Except(Others).Count() > 1;
    }

    public override DatasetRow? Read(RowScope row)
    {
        if (row.FirstOf("messages", "prompt") is not { } found)
        {
            row.Fault("prompt", "missing_field", "The row has neither messages nor prompt.", "Add what the model shall answer.");
            return null;
        }

        if (found.Value.ValueKind is JsonValueKind.String && found.Name == "prompt")
        {
            return new PromptRow(null, found.Value.GetString(), row.Root);
        }

        if (!row.CheckMessages((found.Value, found.Name)))
        {
            return null;
        }

        var messages = found.Value.EnumerateArray().Select(MessageCheck.WithoutWeight).ToList();
        if (messages[^1].GetProperty("role").ValueEquals("assistant"))
        {
            row.Fault($"{found.Name}[{messages.Count - 1}].role", "answer_given", "The chat ends with an assistant message, which the model shall write itself.", "Leave that message out; put what graders compare with into a field of its own.");
        }

        return new PromptRow(row.Chat(messages), null, row.Root);
    }
}
