using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Reading;
using PeftServer.Engine.Weights;

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

    public static TheoryData<string, string> Seq2SeqAdapters => new(
        ((string[])["adapters", "adapterhub"]).SelectMany(kind => Names(kind, "seq2seq").Select(name => (kind, name))));

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
    public async Task Generate_WithAnAdapterOnAnEncoderDecoder_GivesItsGreedyTokensAndTheBasesBesideThem(string kind, string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf(kind, name));
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

    [Fact]
    public async Task Generate_RequestsThatCannotBeServed_FailAloneAndSayWhy()
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", "bart"));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu" });
        var sampling = new SamplingParameters { MaxTokens = 1000, Temperature = 0, LogitBias = new Dictionary<int, double> { [EndOfText] = -1e9 } };

        var tooLong = TokensAsync(engine, new GenerationRequest { Prompt = [.. Enumerable.Repeat(5, 65)], Sampling = sampling });
        var lost = TokensAsync(engine, new GenerationRequest { Prompt = [5], Sampling = sampling, Adapter = new AdapterReference("lost", golden.Folder) });
        var full = TokensAsync(engine, new GenerationRequest { Prompt = [.. Enumerable.Repeat(5, 64)], Sampling = sampling });

        (await Should.ThrowAsync<NotSupportedException>(() => tooLong)).Message.ShouldContain("65 of the prompt");
        (await Should.ThrowAsync<CheckpointException>(() => lost)).Message.ShouldContain("adapter_config.json");
        (await full).Count.ShouldBe(63); // the decoder's 64 places less the start token, whatever the encoder reads
        await CheckAsync(engine, golden, null);
        engine.Load.ShouldBe(0);
    }

    [Fact]
    public async Task Generate_RequestThatIsCancelled_LeavesItsPlaceToTheNext()
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", "t5"));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu", MaxSequences = 1 });
        using var leaves = CancellationTokenSource.CreateLinkedTokenSource(Now);
        var endless = engine.Generate(
            new GenerationRequest
            {
                Prompt = [5, 6],
                Sampling = new SamplingParameters { MaxTokens = 500, Temperature = 0, LogitBias = new Dictionary<int, double> { [EndOfText] = -1e9 } },
            },
            leaves.Token);
        await endless.ReadAsync(Now);

        await leaves.CancelAsync();

        await CheckAsync(engine, golden, null); // one sequence at a time: they wait for the place
        var written = 1;
        await foreach (var _ in endless.ReadAllAsync(Now))
        {
            written++;
        }

        written.ShouldBeLessThan(500);
    }

    [Fact]
    public async Task Read_TextsThatCannotBeRead_FailAloneAndSayWhy()
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", "bert_cls"));
        using var engine = new ReadingEngine(new ReadingEngineOptions { ModelFolder = golden.Folder, Head = ModelHead.SequenceClassification, Device = "cpu" });
        using var left = new CancellationTokenSource();
        await left.CancelAsync();
        var most = (await engine.Loaded).MaxLength;

        var tooLong = engine.ReadAsync(new ReadingRequest { Ids = [.. Enumerable.Repeat(5, most + 1)] }, Now);
        var lost = engine.ReadAsync(new ReadingRequest { Ids = [5], Adapter = new AdapterReference("lost", golden.Folder) }, Now);
        var cancelled = engine.ReadAsync(new ReadingRequest { Ids = [5] }, left.Token);
        var full = engine.ReadAsync(new ReadingRequest { Ids = [.. Enumerable.Repeat(5, most)] }, Now);

        (await Should.ThrowAsync<NotSupportedException>(() => tooLong)).Message.ShouldContain($"reads {most} tokens");
        (await Should.ThrowAsync<CheckpointException>(() => lost)).Message.ShouldContain("adapter_config.json");
        await Should.ThrowAsync<OperationCanceledException>(() => cancelled);
        (await full).Rows.Count.ShouldBe(1);
        engine.Load.ShouldBe(0);
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
