using System.Text;
using PeftServer.Engine.Data;

namespace PeftServer.Engine.Tests.Data;

public sealed class TrainingDataTests
{
    private static readonly TrainingDataOptions Options = new() { MaxLength = 1024 };

    [Fact]
    public void Read_SampleFile_UsesEveryRow()
    {
        var data = TrainingData.Read(Path.Combine(Samples.Spam, "train.jsonl"), Samples.Tokenizer, Options, TestContext.Current.CancellationToken);

        data.Rows.Count.ShouldBe(1500);
        data.Summary.Used.ShouldBe(1500);
        data.Summary.Skipped.ShouldBe(0);
        data.Rows.Select(r => r.Line).ShouldBe(Enumerable.Range(1, 1500).Select(i => (long)i));
        data.Rows.Select(r => Samples.Tokenizer.Decode([.. r.InputIds.Zip(r.Trained).Where(p => p.Second).Select(p => p.First)], skipSpecialTokens: false))
            .Distinct().Order(StringComparer.Ordinal).ShouldBe(["ham<|im_end|>", "spam<|im_end|>"]);
    }

    [Fact]
    public void Read_RowsOfAllKinds_AccountsForEach()
    {
        var chat = (string content, string answer) => $$"""{"messages":[{"role":"user","content":"{{content}}"},{"role":"assistant","content":"{{answer}}"}]}""";
        var text = string.Join('\n', chat("a", "b"), "", "{}", chat(string.Concat(Enumerable.Repeat("word ", 50)), "b"), chat("a", string.Concat(Enumerable.Repeat("word ", 50))));

        var data = Read(text, Options with { MaxLength = 32 });

        data.Summary.Rows.ShouldBe(4);
        (data.Summary.Used, data.Summary.Cut, data.Summary.Skipped).ShouldBe((2, 1, 2));
        data.Summary.Notes.Select(n => (n.Line, n.Outcome)).ShouldBe([(3, RowOutcome.Skipped), (4, RowOutcome.Skipped), (5, RowOutcome.Cut)]);
        data.Rows[1].InputIds.Length.ShouldBe(32);
        data.Summary.TrainedTokens.ShouldBe(data.Rows.Sum(r => r.Trained.Count(t => t)));
    }

    [Fact]
    public void Read_TemplateRefusesARow_SkipsItWithTheTemplatesWords()
    {
        var template = PeftServer.Engine.Tokenizers.ChatTemplates.ChatTemplate.Parse("{{ raise_exception('no system here') }}");

        var data = Read("""{"messages":[{"role":"assistant","content":"b"}]}""", Options with { ChatTemplate = template });

        data.Rows.ShouldBeEmpty();
        data.Summary.Notes.ShouldHaveSingleItem().Reason.ShouldContain("no system here");
    }

    [Fact]
    public void Read_PromptAndCompletionTexts_TrainWhatFollowsThePromptAndTheEnd()
    {
        var row = Read("""{"prompt":"The ","completion":"whale."}""", Options).Rows.ShouldHaveSingleItem();

        row.InputIds.ShouldBe([718, 1385, 16, 2]); // TRL 1.16, objectives/data, run sft_text_pairs
        row.Trained.ShouldBe([false, true, true, true]);
    }

    private static TrainingData Read(string text, TrainingDataOptions options) =>
        TrainingData.Read(new MemoryStream(Encoding.UTF8.GetBytes(text)), Samples.Tokenizer, options, TestContext.Current.CancellationToken);
}
