using System.Text;
using System.Text.Json;

namespace PeftServer.Engine.Data.Formats;

/// <summary>Texts, or pairs of them, and their class.</summary>
internal sealed class ClassificationFormat() : RowFormat(DatasetFormat.Classification)
{
    private static readonly string[] Firsts = ["text", "sentence", "premise", "sentence1"];
    private static readonly string[] Seconds = ["text_pair", "hypothesis", "sentence2"];

    public override IReadOnlyList<string> Fields { get; } = ["label", .. Firsts, .. Seconds];

    public override bool Recognises(JsonElement row) => row.TryGetProperty("label", out _) && Array.Exists(Firsts, name => row.TryGetProperty(name, out _));

    public override DatasetRow? Read(RowScope row)
    {
        var text = row.Text(Firsts);
        var pair = row.FirstOf(Seconds) is { } second ? row.Text(second.Value, second.Name) : null;
        if (row.Field("label") is not { } label)
        {
            row.Fault("label", "missing_field", "The row lacks label.", "Add label: the name or number of its class.");
            return null;
        }

        if (label.ValueKind is JsonValueKind.Array or JsonValueKind.Object)
        {
            row.Fault("label", "wrong_type", $"label is {RowScope.Kind(label)}.", "Make it the name or number of one class.");
        }

        return row.IsGood ? new ClassRow(text!, pair, label.ValueKind is JsonValueKind.True ? "true" : label.ValueKind is JsonValueKind.False ? "false" : label.ToString()) : null;
    }
}

/// <summary>Words with tags.</summary>
internal sealed class TokenClassificationFormat() : RowFormat(DatasetFormat.TokenClassification)
{
    private static readonly string[] Tags = ["ner_tags", "tags", "labels", "pos_tags"];

    public override IReadOnlyList<string> Fields { get; } = ["tokens", .. Tags];

    public override DatasetRow? Read(RowScope row)
    {
        if (row.FirstOf("tokens", "words") is not { } words || row.FirstOf(Tags) is not { } tags)
        {
            row.Fault("tokens", "missing_field", "The row needs tokens and ner_tags.", "Write {\"tokens\": [words], \"ner_tags\": [one tag a word]}.");
            return null;
        }

        var (texts, names) = (row.Texts(words.Value, words.Name), row.Texts(tags.Value, tags.Name, takesNumbers: true));
        if (texts?.Count != names?.Count && row.IsGood)
        {
            row.Fault(tags.Name, "wrong_length", $"There are {texts?.Count} tokens and {names?.Count} tags.", "Give every word one tag.");
        }

        if (texts is { Count: 0 })
        {
            row.Fault(words.Name, "nothing_to_learn", "There are no words.", "Leave the row out.");
        }

        return row.IsGood ? new TaggedRow(texts!, names!) : null;
    }
}

/// <summary>SQuAD's questions. An empty list of answers: the text does not answer it.</summary>
internal sealed class SquadFormat() : RowFormat(DatasetFormat.Squad)
{
    public override IReadOnlyList<string> Fields { get; } = ["question", "context", "answers"];

    public override bool Recognises(JsonElement row) => row.TryGetProperty("question", out _) && row.TryGetProperty("context", out _);

    public override DatasetRow? Read(RowScope row)
    {
        var (question, context) = (row.Text("question"), row.Text("context"));
        if (row.Field("answers") is not { ValueKind: JsonValueKind.Object } answers || !answers.TryGetProperty("text", out var texts) || !answers.TryGetProperty("answer_start", out var starts))
        {
            row.Fault("answers", "missing_field", "The row lacks answers.", "Write {\"answers\": {\"text\": [\"…\"], \"answer_start\": [0]}}; both empty where the context does not answer.");
            return null;
        }

        var found = new List<(string, int)>();
        var list = row.Texts(texts, "answers.text") ?? [];
        if (starts.ValueKind is not JsonValueKind.Array || starts.GetArrayLength() != list.Count)
        {
            row.Fault("answers.answer_start", "wrong_length", "answer_start must have one number for each text.", "Give every answer the place where it begins.");
            return null;
        }

        for (var i = 0; i < list.Count && row.IsGood; i++)
        {
            var start = starts[i].ValueKind is JsonValueKind.Number && starts[i].TryGetInt32(out var number) ? number : -1;
            if (context is null || !Stands(context, list[i], start))
            {
                row.Fault($"answers.answer_start[{i}]", "answer_not_there", $"\"{list[i]}\" does not stand at character {start} of the context.", "Count characters from 0 in the context as it is.");
            }

            found.Add((list[i], start));
        }

        return row.IsGood ? new QuestionRow(question!, context!, found) : null;
    }

    /// <summary>Places count code points, as Python does.</summary>
    private static bool Stands(string context, string answer, int start)
    {
        if (start < 0 || answer.Length == 0)
        {
            return false;
        }

        var at = 0;
        for (var i = 0; i < start && at < context.Length; i++)
        {
            at += Rune.TryGetRuneAt(context, at, out var rune) ? rune.Utf16SequenceLength : 1;
        }

        return at <= context.Length && context.AsSpan(at).StartsWith(answer, StringComparison.Ordinal);
    }
}

/// <summary>Texts that are alike, or how alike they are.</summary>
internal sealed class EmbeddingFormat() : RowFormat(DatasetFormat.Embedding)
{
    public override IReadOnlyList<string> Fields { get; } = ["anchor", "positive", "negative", "negatives", "query", "sentence1", "sentence2", "score"];

    public override bool Recognises(JsonElement row) =>
        (row.TryGetProperty("positive", out _) && (row.TryGetProperty("anchor", out _) || row.TryGetProperty("query", out _)))
        || (row.TryGetProperty("sentence1", out _) && row.TryGetProperty("score", out _));

    public override DatasetRow? Read(RowScope row)
    {
        if (row.Field("sentence1") is { } first)
        {
            var score = row.Field("score") is { } given ? row.Number(given, "score") : null;
            if (score is null && row.IsGood)
            {
                row.Fault("score", "missing_field", "The row lacks score.", "Add score: how alike the sentences are.");
            }

            var pair = (row.Text(first, "sentence1"), row.Text("sentence2"));
            return row.IsGood ? new AlikeRow([pair.Item1!, pair.Item2!], score) : null;
        }

        var texts = new List<string?> { row.Text("anchor", "query"), row.Text("positive") };
        if (row.FirstOf("negative", "negatives") is { } negative)
        {
            if (negative.Value.ValueKind is JsonValueKind.Array)
            {
                texts.AddRange(row.Texts(negative.Value, negative.Name) ?? []);
            }
            else
            {
                texts.Add(row.Text(negative.Value, negative.Name));
            }
        }

        return row.IsGood ? new AlikeRow([.. texts.Select(text => text!)], null) : null;
    }
}
