using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Reading;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// What the engines that serve requests give, against the reference: every text a request of its own, those with an adapter and those to the
/// base alone at once.
/// </summary>
public sealed class EngineCases
{
    private const int EndOfText = 1;

    private static readonly string[] Readers = ["seqcls", "tokcls", "qa"];

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public static TheoryData<string> Seq2SeqModels => [.. Names("models", "seq2seq")];

    public static TheoryData<string> Seq2SeqAdapters => [.. Names("adapters", "seq2seq")];

    public static TheoryData<string> ReadingModels => [.. Names("models", Readers)];

    public static TheoryData<string> ReadingAdapters => [.. Names("adapters", Readers)];

    [Theory]
    [MemberData(nameof(Seq2SeqModels))]
    public async Task Generate_WithAnEncoderDecoder_GivesTheGreedyTokens(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu" });
        using var narrow = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu", MaxBatchTokens = 1 });

        await CheckAsync(engine, golden, null);
        await CheckAsync(narrow, golden, null); // one prompt a step, one token a step
    }

    [Theory]
    [MemberData(nameof(Seq2SeqAdapters))]
    public async Task Generate_WithAnAdapterOnAnEncoderDecoder_GivesItsGreedyTokensAndTheBasesBesideThem(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var plain = new Golden(GoldenFolder.PathOf("models", BaseOf(golden)));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = plain.Folder, Device = "cpu" });

        await Task.WhenAll(CheckAsync(engine, golden, Trained(golden, name)), CheckAsync(engine, plain, null));
    }

    [Theory]
    [MemberData(nameof(ReadingModels))]
    public async Task Read_WithAClassifier_GivesTheScores(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var engine = new ReadingEngine(new ReadingEngineOptions { ModelFolder = golden.Folder, Head = HeadOf(golden), Device = "cpu" });

        await CheckScoresAsync(engine, golden, "logits", null, 1e-4);
    }

    [Theory]
    [MemberData(nameof(ReadingAdapters))]
    public async Task Read_WithAnAdapterOnAClassifier_GivesItsScoresAndTheBasesBesideThem(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var plain = new Golden(GoldenFolder.PathOf("models", BaseOf(golden)));
        using var engine = new ReadingEngine(new ReadingEngineOptions { ModelFolder = plain.Folder, Head = HeadOf(golden), Device = "cpu" });

        await Task.WhenAll(CheckScoresAsync(engine, golden, "logits_trained", Trained(golden, name), 1e-4), CheckScoresAsync(engine, plain, "logits", null, 1e-4));
    }

    private static IEnumerable<string> Names(string kind, params string[] of) => GoldenFolder.Cases(kind, "meta.json").Where(name =>
    {
        using var golden = new Golden(GoldenFolder.PathOf(kind, name));
        return golden.Meta.TryGetProperty("kind", out var said) && of.Contains(said.GetString()) && (kind == "models" || Directory.Exists(Path.Combine(golden.Folder, "trained")));
    });

    private static string BaseOf(Golden golden) => golden.Meta.GetProperty("base").GetString()!;

    private static AdapterReference Trained(Golden golden, string name) => new(name, Path.Combine(golden.Folder, "trained"));

    private static ModelHead HeadOf(Golden golden) => golden.Meta.GetProperty("kind").GetString() switch
    {
        "seqcls" => ModelHead.SequenceClassification,
        "tokcls" => ModelHead.TokenClassification,
        _ => ModelHead.QuestionAnswering,
    };

    /// <summary>Eight greedy tokens behind the start token, the end of the text left out.</summary>
    private static async Task CheckAsync(GenerationEngine engine, Golden golden, AdapterReference? adapter)
    {
        var expected = golden["greedy_ids"].data<long>().ToArray().Chunk((int)golden["greedy_ids"].size(1)).Select(row => row.Skip(1).Select(id => (int?)id)).ToList();
        var texts = golden.Rows().Rows;
        var answers = await Task.WhenAll(texts.Select(text => TokensAsync(engine, new GenerationRequest
        {
            Prompt = text,
            Adapter = adapter,
            Sampling = new SamplingParameters { MaxTokens = 8, Temperature = 0, LogitBias = new Dictionary<int, double> { [EndOfText] = -1e9 } },
        })));

        answers.Length.ShouldBeGreaterThan(0);
        for (var i = 0; i < answers.Length; i++)
        {
            answers[i].ShouldBe(expected[i], $"row {i} of {Path.GetFileName(golden.Folder)}");
        }
    }

    private static async Task<List<int?>> TokensAsync(GenerationEngine engine, GenerationRequest request)
    {
        var tokens = new List<int?>();
        await foreach (var token in engine.Generate(request, Now).ReadAllAsync(Now))
        {
            tokens.Add(token.Id);
        }

        return tokens;
    }

    private static async Task CheckScoresAsync(ReadingEngine engine, Golden golden, string name, AdapterReference? adapter, double tolerance)
    {
        var (rows, places) = golden.Rows();
        var readings = await Task.WhenAll(rows.Select(row => engine.ReadAsync(new ReadingRequest { Ids = row, Adapter = adapter }, Now)));

        using var scope = NewDisposeScope();
        var actual = tensor(readings.SelectMany(reading => reading.Rows).SelectMany(row => row).ToArray()).view(-1, golden[name].size(-1));
        var expected = HeadOf(golden) is ModelHead.SequenceClassification
            ? golden[name]
            : golden[name].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        Golden.ShouldAgree($"{name} of {Path.GetFileName(golden.Folder)}", actual, expected, tolerance);
    }
}
