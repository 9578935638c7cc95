using System.Text;
using PeftServer.Engine.Data;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Data;

/// <summary>Rows for methods other than supervised training, as tokens.</summary>
public sealed class MethodDataTests
{
    private static readonly TrainingDataOptions Options = new() { MaxLength = 64 };
    private static readonly Tokenizer Bert = Tokenizer.Load(Path.Combine(Samples.Goldens, "tokenizers", "bert_uncased"));

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("""{"text": "a", "label": "spam"}|{"text": "b", "label": "ham"}""", "ham,spam")]
    [InlineData("""{"text": "a", "label": 2}|{"text": "b", "label": 0}""", "0,1,2")]
    public void LabelSet_OfAFile_DoesNotDependOnItsOrder(string rows, string labels) =>
        LabelSet.Read(Stream(rows), DatasetFormat.Classification, Now).ShouldBe(labels.Split(','));

    [Fact]
    public void ClassData_PairTooLong_LosesTheEndOfTheLongerText()
    {
        var data = ClassData.Read(Stream("""{"text": "one two three four five six", "text_pair": "seven", "label": "b"}|{"text": "x", "label": "c"}"""), Bert, Options with { MaxLength = 8 }, ["a", "b"], Now);

        var row = data.Rows.ShouldHaveSingleItem();
        row.Ids.Length.ShouldBe(8);
        row.Label.ShouldBe(1);
        row.TypeIds[^2..].ShouldBe([1, 1]);
        (data.Summary.Used, data.Summary.Cut, data.Summary.Skipped).ShouldBe((1, 1, 1));
        data.Summary.Notes[1].Reason.ShouldContain("'c' is not among a, b");
    }

    [Fact]
    public void TaggedData_WordOfSeveralTokens_IsLearntAtItsFirst()
    {
        var data = TaggedData.Read(Stream("""{"tokens": ["embeddings", "in", "Zürich"], "ner_tags": ["O", "O", "B-LOC"]}"""), Bert, Options, ["B-LOC", "O"], Now);

        var row = data.Rows.ShouldHaveSingleItem();
        row.Ids.ShouldBe(Bert.Encode("embeddings in Zürich"));
        row.Labels.Where(label => label != TaggedSequence.Ignored).ShouldBe([1, 1, 0]);
        (row.Labels[0], row.Labels[^1]).ShouldBe((TaggedSequence.Ignored, TaggedSequence.Ignored));
    }

    [Fact]
    public void QuestionData_LongText_HasTheAnswerInTheWindowsThatHoldIt()
    {
        var words = string.Join(' ', Enumerable.Range(0, 40).Select(i => i == 30 ? "needle" : "hay"));
        var start = words.IndexOf("needle", StringComparison.Ordinal);
        var data = QuestionData.Read(
            Stream($$$"""{"question": "where?", "context": "{{{words}}}", "answers": {"text": ["needle"], "answer_start": [{{{start}}}]}}"""), Bert, Options with { MaxLength = 24 }, stride: 6, Now);

        data.Windows.Count.ShouldBeGreaterThan(2);
        data.Windows.ShouldAllBe(window => window.Ids.Length <= 24);
        var holding = data.Windows.Where(window => window.Start > 0).ToList();
        holding.ShouldNotBeEmpty();
        foreach (var window in holding)
        {
            Bert.Decode(window.Ids.AsSpan()[window.Start..(window.End + 1)]).ShouldBe("needle");
        }

        data.Windows.Where(window => window.Start == 0).ShouldAllBe(window => !Bert.Decode(window.Ids, true).Contains("needle"));
        data.Windows[0].Ids[..4].ShouldBe(Bert.Encode("where?")[..4]);
    }

    [Fact]
    public void AlikeData_RowsOfOtherWidth_AreSkipped()
    {
        var data = AlikeData.Read(Stream("""{"anchor": "a", "positive": "b"}|{"anchor": "a", "positive": "b", "negative": "c"}"""), Bert, Options, Now);

        data.Rows.ShouldHaveSingleItem().Texts[0].ShouldBe(Bert.Encode("a"));
        data.Summary.Skipped.ShouldBe(1);
    }

    [Fact]
    public void PromptData_Chat_IsWhatTheModelIsFed()
    {
        var data = PromptData.Read(Stream("""{"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"}|{"messages": [{"role": "user", "content": "2+2?"}]}"""), Samples.Tokenizer, Options, Now);

        data.Rows.Count.ShouldBe(2);
        Samples.Tokenizer.Decode(data.Rows[0].Ids, skipSpecialTokens: false).ShouldEndWith("<|im_start|>assistant\n");
        data.Rows[0].Item.GetProperty("answer").GetString().ShouldBe("4");
    }

    private static MemoryStream Stream(string rows) => new(Encoding.UTF8.GetBytes(rows.Replace('|', '\n')));
}
