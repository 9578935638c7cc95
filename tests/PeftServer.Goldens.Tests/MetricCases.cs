using System.Text.Json;
using PeftServer.Engine.Evaluation;

namespace PeftServer.Goldens.Tests;

/// <summary>Text graders and evaluation metrics against rouge-score, rapidfuzz, sacrebleu, NLTK, scikit-learn and seqeval.</summary>
public sealed class MetricCases
{
    private const double Tolerance = 1e-9;

    private static readonly JsonElement Cases = JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(GoldenFolder.PathOf("objectives", "metrics.json")));

    private static readonly string[] RougeNames = ["rouge1", "rouge2", "rouge3", "rouge4", "rouge5", "rougeL", "rougeLsum"];

    public static TheoryData<int> Pairs => [.. Enumerable.Range(0, Cases.GetProperty("pairs").GetArrayLength())];

    public static TheoryData<int> Classifications => [.. Enumerable.Range(0, Cases.GetProperty("classification").GetArrayLength())];

    [Theory]
    [MemberData(nameof(Pairs))]
    public void Rouge_OfAPair_IsRougeScores(int index)
    {
        var (row, reference, candidate) = Pair(index);
        foreach (var name in RougeNames)
        {
            var score = Score(new Rouge(), name, reference, candidate);
            new[] { score.Precision, score.Recall, score.F1 }.ShouldBe(Numbers(row.GetProperty("rouge").GetProperty(name)), Tolerance, name);
            Score(new Rouge(useStemmer: true), name, reference, candidate).F1.ShouldBe(row.GetProperty("rouge_stemmed_f").GetProperty(name).GetDouble(), Tolerance, $"{name} of stems");
        }
    }

    [Theory]
    [MemberData(nameof(Pairs))]
    public void TextSimilarity_OfAPair_IsTheLibraries(int index)
    {
        var (row, reference, candidate) = Pair(index);
        FuzzyMatch.Ratio(reference, candidate).ShouldBe(row.GetProperty("fuzzy_match").GetDouble(), Tolerance);
        FuzzyMatch.TokenSetRatio(reference, candidate).ShouldBe(row.GetProperty("fuzzy_token_set").GetDouble(), Tolerance);
        FuzzyMatch.WeightedRatio(reference, candidate).ShouldBe(row.GetProperty("fuzzy_w").GetDouble(), Tolerance, "WRatio");
        FuzzyMatch.WeightedRatio(candidate, reference).ShouldBe(row.GetProperty("fuzzy_w").GetDouble(), Tolerance, "WRatio, the other way round");
        Bleu.Score(reference, candidate).ShouldBe(row.GetProperty("bleu").GetDouble(), Tolerance, "bleu");
        Bleu.Gleu(reference, candidate).ShouldBe(row.GetProperty("gleu").GetDouble(), Tolerance, "gleu");
    }

    /// <summary>Written by <c>meteor_cases.py</c> beside the file, which lies in this repository alone.</summary>
    [Fact]
    public void Meteor_OfPairs_IsNltksWithoutSynonyms()
    {
        var rows = JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(Path.Combine(GoldenFolder.RepositoryRoot(), "tests", "Goldens", "objectives", "meteor.json")));
        rows.GetArrayLength().ShouldBe(28);
        foreach (var row in rows.EnumerateArray())
        {
            var (reference, candidate) = (row.GetProperty("reference").GetString()!, row.GetProperty("candidate").GetString()!);
            Meteor.Score(reference, candidate).ShouldBe(row.GetProperty("meteor").GetDouble(), Tolerance, $"{reference} / {candidate}");
        }
    }

    [Theory]
    [MemberData(nameof(Pairs))]
    public void Squad_OfAPair_IsItsScripts(int index)
    {
        var (row, reference, candidate) = Pair(index);
        new[] { SquadScore.Normalise(reference), SquadScore.Normalise(candidate) }.ShouldBe(Texts(row.GetProperty("squad_normalised")));
        SquadScore.Exact(reference, candidate).ShouldBe(row.GetProperty("squad_exact").GetDouble());
        SquadScore.F1(reference, candidate).ShouldBe(row.GetProperty("squad_f1").GetDouble(), Tolerance);
    }

    [Theory]
    [MemberData(nameof(Classifications))]
    public void Classification_OfGuesses_IsScikitLearns(int index)
    {
        var row = Cases.GetProperty("classification")[index];
        var labels = Texts(row.GetProperty("labels"));
        int[] Ids(string name) => [.. Texts(row.GetProperty(name)).Select(label => Array.IndexOf(labels, label))];

        var report = new ClassificationReport(Ids("truth"), Ids("guess"), labels.Length);

        report.Accuracy.ShouldBe(row.GetProperty("accuracy").GetDouble(), Tolerance);
        report.Matthews.ShouldBe(row.GetProperty("matthews").GetDouble(), Tolerance);
        new[] { report.Macro.Precision, report.Macro.Recall, report.Macro.F1 }.ShouldBe(Numbers(row.GetProperty("macro")), Tolerance);
        new[] { report.Weighted.Precision, report.Weighted.Recall, report.Weighted.F1 }.ShouldBe(Numbers(row.GetProperty("weighted")), Tolerance);
        Enumerable.Repeat(report.Accuracy, 3).ShouldBe(Numbers(row.GetProperty("micro")), Tolerance); // each row has one class
        for (var label = 0; label < labels.Length; label++)
        {
            var score = report.Each[label];
            new[] { score.Precision, score.Recall, score.F1 }.ShouldBe(Numbers(row.GetProperty("each").GetProperty(labels[label]))[..3], Tolerance);
        }
    }

    [Fact]
    public void Entities_OfTags_AreSeqevals()
    {
        var entities = Cases.GetProperty("entities");
        var (truth, guess) = (Tags(entities.GetProperty("truth")), Tags(entities.GetProperty("guess")));

        ShouldBe(EntityScore.Micro(truth, guess), entities.GetProperty("default"), "f1");
        ShouldBe(EntityScore.Micro(truth, guess, strict: true), entities.GetProperty("strict_iob2"), "f1");
        var byType = EntityScore.ByType(truth, guess);
        byType.Values.Average(score => score.F1).ShouldBe(entities.GetProperty("default").GetProperty("macro_f1").GetDouble(), Tolerance);
        foreach (var (type, score) in byType)
        {
            ShouldBe(score, entities.GetProperty("default").GetProperty("report").GetProperty(type), "f1-score");
        }
    }

    private static void ShouldBe(FScore score, JsonElement expected, string f1) => new[] { score.Precision, score.Recall, score.F1 }.ShouldBe(
        new[] { "precision", "recall", f1 }.Select(name => expected.GetProperty(name).GetDouble()), Tolerance);

    private static FScore Score(Rouge rouge, string name, string reference, string candidate) => name switch
    {
        "rougeL" => rouge.L(reference, candidate),
        "rougeLsum" => rouge.LSum(reference, candidate),
        _ => rouge.N(reference, candidate, name[^1] - '0'),
    };

    private static (JsonElement Row, string Reference, string Candidate) Pair(int index)
    {
        var row = Cases.GetProperty("pairs")[index];
        return (row, row.GetProperty("reference").GetString()!, row.GetProperty("candidate").GetString()!);
    }

    private static string[][] Tags(JsonElement sentences) => [.. sentences.EnumerateArray().Select(Texts)];

    private static string[] Texts(JsonElement list) => [.. list.EnumerateArray().Select(text => text.GetString()!)];

    private static double[] Numbers(JsonElement list) => [.. list.EnumerateArray().Select(number => number.GetDouble())];
}
