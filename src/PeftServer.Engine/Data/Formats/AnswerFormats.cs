using System.Text.Json;

namespace PeftServer.Engine.Data.Formats;

/// <summary>A prompt and how it goes on.</summary>
internal sealed class PromptCompletionFormat() : RowFormat(DatasetFormat.PromptCompletion)
{
    public override IReadOnlyList<string> Fields { get; } = ["prompt", "completion"];

    public override DatasetRow? Read(RowScope row) => Answer(row);

    public static DatasetRow? Answer(RowScope row)
    {
        if (row.Field("prompt") is not { } prompt)
        {
            row.Fault("prompt", "missing_field", "The row lacks prompt.", "Add prompt: what the model is given.");
            return null;
        }

        if (row.Field("completion") is not { } completion)
        {
            row.Fault("completion", "missing_field", "A row with prompt needs completion too.", "Add completion: what the model shall say. (For grpo: a field that graders compare with.)");
            return null;
        }

        return row.Answer(prompt, completion, "completion");
    }
}

/// <summary>A prompt with an answer that is good or bad.</summary>
internal sealed class JudgedFormat() : RowFormat(DatasetFormat.Judged)
{
    public override IReadOnlyList<string> Fields { get; } = ["prompt", "completion", "label"];

    public override bool Recognises(JsonElement row) => row.TryGetProperty("prompt", out _) && row.TryGetProperty("label", out _);

    public override DatasetRow? Read(RowScope row)
    {
        if (PromptCompletionFormat.Answer(row) is not { } answer)
        {
            return null;
        }

        var label = row.Field("label");
        if (label is { ValueKind: JsonValueKind.True or JsonValueKind.False })
        {
            return new LabelledRow(answer, label.Value.GetBoolean());
        }

        row.Fault("label", label is null ? "missing_field" : "wrong_type", label is null ? "The row lacks label." : $"label is {RowScope.Kind(label.Value)}.", "Make it true for a good answer, false for a bad one.");
        return null;
    }
}

/// <summary>A better and a worse answer.</summary>
internal sealed class PreferenceFormat() : RowFormat(DatasetFormat.Preference)
{
    public override IReadOnlyList<string> Fields { get; } = ["chosen", "rejected", "prompt", "margin"];

    public override bool Recognises(JsonElement row) => row.TryGetProperty("chosen", out _) || row.TryGetProperty("rejected", out _);

    public override DatasetRow? Read(RowScope row)
    {
        if (row.Field("chosen") is not { } chosen || row.Field("rejected") is not { } rejected)
        {
            row.Fault("chosen", "missing_field", "A row of preferences needs both chosen and rejected.", "Add the one that is missing.");
            return null;
        }

        var pair = row.Field("prompt") is { } prompt ? WithPrompt(row, prompt, chosen, rejected)
            : chosen.ValueKind is JsonValueKind.String && rejected.ValueKind is JsonValueKind.String ? OfTexts(chosen.GetString()!, rejected.GetString()!)
            : OfChats(row, chosen, rejected);
        return row.Field("margin") is { } margin ? pair is null ? null : pair with { Margin = row.Number(margin, "margin") } : pair;
    }

    private static PairRow? WithPrompt(RowScope row, JsonElement prompt, JsonElement chosen, JsonElement rejected) =>
        row.Answer(prompt, chosen, "chosen") is { } better && row.Answer(prompt, rejected, "rejected") is { } worse ? new PairRow(better, worse) : null;

    private static PairRow OfTexts(string good, string bad)
    {
        var common = good.AsSpan().CommonPrefixLength(bad);
        common -= common > 0 && good[common - 1] == ' ' ? 1 : 0; // a space goes with the word behind it
        return new PairRow(new TextRow(good[..common], good[common..]), new TextRow(bad[..common], bad[common..]));
    }

    private static PairRow? OfChats(RowScope row, JsonElement chosen, JsonElement rejected)
    {
        if (!row.CheckMessages((chosen, "chosen"), (rejected, "rejected")))
        {
            return null;
        }

        var (first, second) = (chosen.EnumerateArray().ToList(), rejected.EnumerateArray().ToList());
        var shared = first.Zip(second).TakeWhile(p => JsonElement.DeepEquals(p.First, p.Second)).Count();
        if (shared == 0 || shared == first.Count || shared == second.Count)
        {
            row.Fault("chosen", "no_prompt", "chosen and rejected must begin with the same messages and then differ.", "Put the prompt in front of both, or into prompt.");
            return null;
        }

        return new PairRow(new ChatCompletionRow(row.Chat(first), shared), new ChatCompletionRow(row.Chat(second), shared));
    }
}

/// <summary>OpenAI's spelling of preferences.</summary>
internal sealed class OpenAIPreferenceFormat() : RowFormat(DatasetFormat.OpenAIPreference)
{
    public override IReadOnlyList<string> Fields { get; } = ["preferred_output", "non_preferred_output", "input"];

    public override bool Recognises(JsonElement row) => row.TryGetProperty("preferred_output", out _) || row.TryGetProperty("non_preferred_output", out _);

    public override DatasetRow? Read(RowScope row)
    {
        if (row.Field("input") is not { ValueKind: JsonValueKind.Object } input || !input.TryGetProperty("messages", out var messages))
        {
            row.Fault("input.messages", "missing_field", "The row lacks input.messages.", "Write {\"input\": {\"messages\": […]}, \"preferred_output\": […], \"non_preferred_output\": […]}.");
            return null;
        }

        if (row.Field("preferred_output") is not { } chosen || row.Field("non_preferred_output") is not { } rejected)
        {
            row.Fault("preferred_output", "missing_field", "A row of preferences needs both preferred_output and non_preferred_output.", "Add the one that is missing.");
            return null;
        }

        if (!row.CheckMessages((messages, "input.messages"), (chosen, "preferred_output"), (rejected, "non_preferred_output")))
        {
            return null;
        }

        var prompt = messages.EnumerateArray().Select(MessageCheck.WithoutWeight).ToList();
        DatasetRow Completion(JsonElement answer) =>
            new ChatCompletionRow(row.Chat([.. prompt, .. answer.EnumerateArray().Select(MessageCheck.WithoutWeight)], input), prompt.Count);
        return new PairRow(Completion(chosen), Completion(rejected));
    }
}

/// <summary>Alpaca's instructions.</summary>
internal sealed class AlpacaFormat() : RowFormat(DatasetFormat.Alpaca)
{
    public override IReadOnlyList<string> Fields { get; } = ["instruction", "input", "output", "response", "system"];

    public override DatasetRow? Read(RowScope row)
    {
        var (instruction, output) = (row.Text("instruction"), row.Text("output", "response"));
        if (output is "")
        {
            row.Fault("output", "nothing_to_learn", "output is empty.", "Write what the model shall say, or leave the row out.");
        }

        var input = row.Field("input") is { } given ? row.Text(given, "input") : "";
        var system = row.Field("system") is { } words ? row.Text(words, "system") : null;
        return row.IsGood ? new InstructionRow(system is "" ? null : system, instruction!, input!, output!) : null;
    }
}

/// <summary>Plain text.</summary>
internal sealed class TextFormat() : RowFormat(DatasetFormat.Text)
{
    public override IReadOnlyList<string> Fields { get; } = ["text"];

    public override DatasetRow? Read(RowScope row) => row.Text("text") is { } text ? new PlainTextRow(text) : null;
}

/// <summary>Pairs for models that read one text and write another.</summary>
internal sealed class Seq2SeqFormat() : RowFormat(DatasetFormat.Seq2Seq)
{
    private static readonly string[] Sources = ["source", "document", "article", "input_text"];
    private static readonly string[] Targets = ["target", "summary", "highlights", "target_text"];

    public override IReadOnlyList<string> Fields { get; } = [.. Sources, .. Targets];

    public override bool Recognises(JsonElement row) =>
        Array.Exists(Sources, name => row.TryGetProperty(name, out _)) && Array.Exists(Targets, name => row.TryGetProperty(name, out _));

    public override DatasetRow? Read(RowScope row)
    {
        var (source, target) = (row.Text(Sources), row.Text(Targets));
        if (target is "")
        {
            row.Fault("target", "nothing_to_learn", "target is empty.", "Write what the model shall say, or leave the row out.");
        }

        return row.IsGood ? new SourceTargetRow(source!, target!) : null;
    }
}
