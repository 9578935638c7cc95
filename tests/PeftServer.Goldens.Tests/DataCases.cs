using System.Text;
using System.Text.Json;
using PeftServer.Engine.Data;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Goldens.Tests;

/// <summary>Rows to ids and masks, and packing, against TRL.</summary>
public sealed class DataCases
{
    // Where this project does otherwise on purpose. What is listed is checked to differ in just this.
    private static readonly Dictionary<string, string> OnPurpose = new()
    {
        // TRL refuses templates without generation markers; whose words a text is made of is known here without.
        ["sft_assistant_only_shipped"] = "the mask comes from the spans",

        // An empty text becomes the end token alone, which nothing comes before: no loss can be taken from it.
        ["sft_text"] = "a row without a token to learn is skipped and told",

        // TRL swaps in a template of its own that marks the newline after "assistant" and the one after <|im_end|> too.
        ["sft_assistant_only_tools"] = "the mask is what the assistant says, by the model's own template",
    };

    private static readonly JsonElement Cases = Read("cases.json");
    private static readonly JsonElement Packing = Read("packing.json");

    private static readonly string Sample = Path.Combine(GoldenFolder.RepositoryRoot(), "deploy", "samples", "models", "tiny-llama");

    public static IEnumerable<TheoryDataRow<string>> Runs => Cases.GetProperty("runs").EnumerateArray()
        .Select(r => r.GetProperty("name").GetString()!)
        .Where(n => GoldenFolder.Takes("objectives/data", n))
        .Select(n => new TheoryDataRow<string>(n));

    public static IEnumerable<TheoryDataRow<string, string>> PackingCases => Packing.GetProperty("cases").EnumerateArray()
        .Select(c => new TheoryDataRow<string, string>(c.GetProperty("name").GetString()!, c.GetProperty("strategy").GetString()!));

    [Theory, MemberData(nameof(Runs))]
    public void Rows_BecomeTheIdsAndMasksOfTrl(string name)
    {
        var run = Cases.GetProperty("runs").EnumerateArray().Single(r => r.GetProperty("name").ValueEquals(name));
        var settings = run.GetProperty("settings");
        switch (run.GetProperty("trainer").GetString())
        {
            case "SFTTrainer":
                break;
            case "KTOTrainer":
                CheckJudged(run, settings);
                return;
            default:
                CheckPairs(name, run, settings);
                return;
        }

        var data = TrainingData.Read(Rows(run.GetProperty("dataset").GetString()!), Tokenizer.Load(Sample), new TrainingDataOptions
        {
            MaxLength = settings.GetProperty("max_length").GetInt32(),
            StrictSpecialTokens = false,
            AssistantOnlyLoss = settings.TryGetProperty("assistant_only_loss", out var assistant) ? assistant.GetBoolean()
                : run.GetProperty("dataset").ValueEquals("messages") ? false : null,
            CompletionOnlyLoss = !settings.TryGetProperty("completion_only_loss", out var completion) || completion.GetBoolean(),
            TruncationMode = settings.TryGetProperty("truncation_mode", out var mode) && mode.ValueEquals("keep_end") ? TruncationMode.KeepEnd : TruncationMode.KeepStart,
            ChatTemplate = ChatTemplate.Parse(Cases.GetProperty("templates").GetProperty(run.GetProperty("template").GetString()!).GetString()!),
        }, TestContext.Current.CancellationToken);

        var got = data.Rows.Select(r => (Ids: r.InputIds, Labels: r.InputIds.Zip(r.Trained, (id, trained) => trained ? id : -100).ToArray())).ToList();
        if (OnPurpose.ContainsKey(name))
        {
            CheckOnPurpose(name, run, data);
            return;
        }

        if (settings.TryGetProperty("packing", out _))
        {
            var packed = RowPacker.Pack([.. got.Select(r => r.Ids.Length)], settings.GetProperty("max_length").GetInt32(), PackingStrategy.Bfd);
            got = [.. packed.Select(row => (
                row.SelectMany(p => got[p.Document].Ids.Skip(p.Start).Take(p.Length)).ToArray(),
                row.SelectMany(p => got[p.Document].Labels.Skip(p.Start).Take(p.Length)).ToArray()))];
        }

        var expected = run.GetProperty("result").EnumerateArray().ToList();
        got.Count.ShouldBe(expected.Count);
        foreach (var (row, want) in got.Zip(expected))
        {
            row.Ids.ShouldBe(Ints(want.GetProperty("input_ids")));
            row.Labels.ShouldBe(Ints(want.GetProperty("labels")));
        }
    }

    [Theory, MemberData(nameof(PackingCases))]
    public void Pack_FillsTheRowsOfTrl(string name, string strategy)
    {
        var expected = Packing.GetProperty("cases").EnumerateArray().Single(c => c.GetProperty("name").ValueEquals(name) && c.GetProperty("strategy").ValueEquals(strategy));

        var rows = RowPacker.Pack(Ints(expected.GetProperty("lengths")), expected.GetProperty("seq_length").GetInt32(), strategy switch
        {
            "bfd" => PackingStrategy.Bfd,
            "bfd_split" => PackingStrategy.BfdSplit,
            _ => PackingStrategy.Wrapped,
        });

        rows.Select(row => string.Join(' ', row.Select(p => $"[{p.Document},{p.Start},{p.Length}]")))
            .ShouldBe(expected.GetProperty("bins").EnumerateArray().Select(b => string.Join(' ', b.EnumerateArray().Select(p => p.GetRawText()))));
    }

    private static PreferenceData ReadPreferences(JsonElement run, JsonElement settings) => PreferenceData.Read(Rows(run.GetProperty("dataset").GetString()!), Tokenizer.Load(Sample), new TrainingDataOptions
    {
        MaxLength = settings.GetProperty("max_length").GetInt32(),
        StrictSpecialTokens = false,
        TruncationMode = settings.TryGetProperty("truncation_mode", out var mode) && mode.ValueEquals("keep_end") ? TruncationMode.KeepEnd : TruncationMode.KeepStart,
        ChatTemplate = ChatTemplate.Parse(Cases.GetProperty("templates").GetProperty(run.GetProperty("template").GetString()!).GetString()!),
    }, TestContext.Current.CancellationToken);

    private static void CheckPairs(string name, JsonElement run, JsonElement settings)
    {
        var pairs = ReadPreferences(run, settings).Pairs.ToList();
        var expected = run.GetProperty("result").EnumerateArray().ToList();
        switch (run.GetProperty("trainer").GetString())
        {
            case "DPOTrainer":
                pairs.Count.ShouldBe(expected.Count);
                foreach (var (pair, want) in pairs.Zip(expected))
                {
                    pair.PromptIds.ShouldBe(Ints(want.GetProperty("prompt_ids")));
                    pair.ChosenIds.ShouldBe(Ints(want.GetProperty("chosen_ids")));
                    pair.RejectedIds.ShouldBe(Ints(want.GetProperty("rejected_ids")));
                }

                CheckBatch(pairs, run, settings);
                break;
            case "RewardTrainer":
                // pairs with a side beyond the limit are dropped, never cut: the end of an answer is what is judged
                var limit = settings.GetProperty("max_length").GetInt32();
                pairs.RemoveAll(p => p.PromptIds.Length + Math.Max(p.ChosenIds.Length, p.RejectedIds.Length) > limit);
                pairs.Select(p => string.Join(' ', p.Chosen(limit).Ids)).ShouldBe(expected.Select(e => string.Join(' ', Ints(e.GetProperty("chosen_ids")))));
                pairs.Select(p => string.Join(' ', p.Rejected(limit).Ids)).ShouldBe(expected.Select(e => string.Join(' ', Ints(e.GetProperty("rejected_ids")))));
                break;
            default:
                CheckOlderPairs(name, pairs, expected);
                break;
        }
    }

    /// <summary>
    /// CPO and ORPO, on purpose otherwise: TRL's older code puts BOS in front and EOS behind conversations whose template has
    /// said where they begin and end, and keeps a prompt that fills the limit with an empty answer. Rows here are DPO's.
    /// </summary>
    private static void CheckOlderPairs(string name, List<PreferenceRow> pairs, List<JsonElement> expected)
    {
        if (name == "cpo_truncated")
        {
            pairs.Count.ShouldBe(3); // the two with an empty answer are skipped
            return;
        }

        foreach (var (pair, want) in pairs.Zip(expected))
        {
            Ints(want.GetProperty("chosen_input_ids")).ShouldBe([0, .. pair.PromptIds, .. pair.ChosenIds, 2]);
            Ints(want.GetProperty("rejected_input_ids")).ShouldBe([0, .. pair.PromptIds, .. pair.RejectedIds, 2]);
        }
    }

    private static void CheckBatch(List<PreferenceRow> pairs, JsonElement run, JsonElement settings)
    {
        if (!run.TryGetProperty("batch", out var batch))
        {
            return;
        }

        // the collator's rows: all chosen, then all rejected, padded on the right
        var limit = settings.GetProperty("max_length").GetInt32();
        var mode = settings.TryGetProperty("truncation_mode", out _) ? TruncationMode.KeepEnd : TruncationMode.KeepStart;
        var rows = pairs.Select(p => p.Chosen(limit, mode)).Concat(pairs.Select(p => p.Rejected(limit, mode))).ToList();
        var ids = batch.GetProperty("input_ids").EnumerateArray().Select(Ints).ToList();
        var masks = batch.GetProperty("completion_mask").EnumerateArray().Select(Ints).ToList();
        ids.Count.ShouldBe(rows.Count);
        for (var i = 0; i < rows.Count; i++)
        {
            ids[i][..rows[i].Ids.Length].ShouldBe(rows[i].Ids);
            masks[i][..rows[i].Ids.Length].ShouldBe(rows[i].Trained.Select(t => t ? 1 : 0));
        }
    }

    private static void CheckJudged(JsonElement run, JsonElement settings)
    {
        var data = ReadPreferences(run, settings);
        var rows = data.Judged.Count > 0 ? data.Judged : PreferenceRow.ToJudged(data.Pairs);
        var mismatched = JudgedRow.Mismatched(rows, settings.TryGetProperty("per_device_train_batch_size", out var size) ? size.GetInt32() : 8);
        var expected = run.GetProperty("result").EnumerateArray().ToList();
        rows.Count.ShouldBe(expected.Count);
        for (var i = 0; i < rows.Count; i++)
        {
            rows[i].Label.ShouldBe(expected[i].GetProperty("label").GetBoolean());
            rows[i].PromptIds.ShouldBe(Ints(expected[i].GetProperty("prompt_ids")));
            rows[i].CompletionIds.ShouldBe(Ints(expected[i].GetProperty("completion_ids")));
            mismatched[i].ShouldBe(Ints(expected[i].GetProperty("KL_completion_ids")));
        }
    }

    private static void CheckOnPurpose(string name, JsonElement run, TrainingData data)
    {
        var tokenizer = Tokenizer.Load(Sample);
        if (name == "sft_text")
        {
            data.Rows.Select(r => r.InputIds).ShouldBe(run.GetProperty("result").EnumerateArray().Take(2).Select(r => Ints(r.GetProperty("input_ids"))));
            data.Summary.Notes.ShouldHaveSingleItem().Outcome.ShouldBe(RowOutcome.Skipped);
            return;
        }

        if (run.TryGetProperty("result", out var result))
        {
            data.Rows.Select(r => r.InputIds).ShouldBe(result.EnumerateArray().Select(r => Ints(r.GetProperty("input_ids"))));
        }

        var first = data.Rows[0];
        tokenizer.Decode([.. first.InputIds.Zip(first.Trained).Where(p => p.Second).Select(p => p.First)], skipSpecialTokens: false).ShouldStartWith("Moby Dick.");
    }

    private static MemoryStream Rows(string dataset) => new(Encoding.UTF8.GetBytes(
        string.Join('\n', Cases.GetProperty("datasets").GetProperty(dataset).EnumerateArray().Select(r => r.GetRawText()))));

    private static JsonElement Read(string file) => JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(GoldenFolder.PathOf("objectives", "data", file)));

    private static int[] Ints(JsonElement list) => [.. list.EnumerateArray().Select(i => i.GetInt32())];
}
