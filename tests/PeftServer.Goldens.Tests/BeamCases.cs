using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// The engine's search of beams: with one beam the reference's greedy tokens; with as many as there are tokens the best of all texts; and in
/// between what the definition of transformers' search gives, followed here without caches, on arrays of all beams and all tokens.
/// </summary>
public sealed class BeamCases
{
    private const float Never = -1e9f;

    private static readonly string[] Models = ["llama", "gpt2", "bloom", "t5", "bart"];

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public static TheoryData<string> ModelNames => [.. Models];

    public static TheoryData<string, double, BeamStop> Searches => [.. from model in Models
        from penalty in (double[])[0, 1, 2]
        from stop in Enum.GetValues<BeamStop>()
        select (model, penalty, stop)];

    [Theory]
    [MemberData(nameof(ModelNames))]
    public async Task Search_OneBeam_GivesTheGreedyTokens(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var engine = Engine(golden);
        var greedy = await engine.Generate(new GenerationRequest { Prompt = golden.Rows().Rows[0], Sampling = new SamplingParameters { MaxTokens = 8, Temperature = 0 } }, Now)
            .ReadAllAsync(Now).Select(token => token.Id!.Value).ToListAsync(Now);

        var found = await engine.SearchAsync(new GenerationRequest { Prompt = golden.Rows().Rows[0], Sampling = new SamplingParameters { MaxTokens = 8 } }, new BeamParameters { Width = 1 }, Now);

        found.ShouldHaveSingleItem().Tokens.ShouldBe(greedy);
    }

    [Theory]
    [MemberData(nameof(ModelNames))]
    public async Task Search_AsManyBeamsAsTokens_GivesTheBestOfAllTexts(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var engine = Engine(golden);
        using var model = Load(golden);
        var (prompt, vocabulary) = (golden.Rows().Rows[0], model.Config.VocabSize);
        var first = Row(model, prompt, []);
        var all = Enumerable.Range(0, vocabulary)
            .SelectMany(a => Row(model, prompt, [a]).Select((score, b) => (Tokens: (int[])[a, b], Score: ((double)first[a] + score) / 2))).ToList();

        var found = await engine.SearchAsync(new GenerationRequest { Prompt = prompt, Sampling = new SamplingParameters { MaxTokens = 2 } }, new BeamParameters { Width = vocabulary }, Now);

        found.Count.ShouldBe(vocabulary);
        var best = all.OrderByDescending(text => text.Score).Take(5).ToList();
        for (var i = 0; i < best.Count; i++)
        {
            found[i].Tokens.ShouldBe(best[i].Tokens);
            ((double)found[i].Score).ShouldBe(best[i].Score, 1e-4);
        }
    }

    [Theory]
    [MemberData(nameof(Searches))]
    public async Task Search_SeveralBeams_FollowsTheDefinition(string name, double penalty, BeamStop stop)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var engine = Engine(golden);
        using var model = Load(golden);
        var prompt = golden.Rows().Rows[1];
        var first = Row(model, prompt, []);
        var stops = Enumerable.Range(0, first.Length).OrderByDescending(token => first[token]).Skip(1).Take(4).ToHashSet(); // likely enough to come
        var parameters = new BeamParameters { Width = 3, LengthPenalty = penalty, Stop = stop };

        var found = await engine.SearchAsync(new GenerationRequest { Prompt = prompt, Sampling = new SamplingParameters { MaxTokens = 7, StopTokens = stops } }, parameters, Now);

        if (penalty == 0)
        {
            found.ShouldContain(hypothesis => hypothesis.FinishReason == FinishReason.Stop); // the others favour what goes on to the last token
        }

        var expected = Defined(model, prompt, parameters, stops, 7);
        found.Select(hypothesis => hypothesis.Tokens).ShouldBe(expected.Select(text => text.Tokens.Where(token => !stops.Contains(token)).ToArray()));
        found.Zip(expected).ShouldAllBe(pair => Math.Abs(pair.First.Score - pair.Second.Score) < 1e-4);
    }

    [Fact]
    public async Task Search_BesideOtherRequestsAndUnderAnAdapter_GivesTheSame()
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapters", "prefix_tuning"));
        using var plain = new Golden(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!));
        using var narrow = new GenerationEngine(new GenerationEngineOptions { ModelFolder = plain.Folder, Device = "cpu", MaxBatchTokens = 2 });
        using var engine = Engine(plain);
        var request = new GenerationRequest
        {
            Prompt = golden.Rows().Rows[0],
            Adapter = new AdapterReference("prefix", Path.Combine(golden.Folder, "trained")),
            Sampling = new SamplingParameters { MaxTokens = 6 },
        };
        var alone = await engine.SearchAsync(request, new BeamParameters { Width = 4 }, Now);

        var together = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => narrow.SearchAsync(request, new BeamParameters { Width = 4 }, Now)));
        var basic = await engine.SearchAsync(request with { Adapter = null }, new BeamParameters { Width = 4 }, Now);

        together.ShouldAllBe(found => found.Select(hypothesis => string.Join(' ', hypothesis.Tokens)).SequenceEqual(alone.Select(hypothesis => string.Join(' ', hypothesis.Tokens))));
        basic[0].Score.ShouldNotBe(alone[0].Score);
        (narrow.Load, engine.Load).ShouldBe((0, 0));
    }

    [Fact]
    public async Task Search_Cancelled_LeavesItsPlace()
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", "llama"));
        using var engine = Engine(golden);
        using var leaves = CancellationTokenSource.CreateLinkedTokenSource(Now);
        await leaves.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(() => engine.SearchAsync(
            new GenerationRequest { Prompt = [5], Sampling = new SamplingParameters { MaxTokens = 40 } }, new BeamParameters { Width = 4 }, leaves.Token));
    }

    private static GenerationEngine Engine(Golden golden) => new(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu" });

    private static LanguageModel Load(Golden golden) => (LanguageModel)PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float32);

    /// <summary>Log-probabilities of every token behind a prompt and some tokens, read from the beginning.</summary>
    private static float[] Row(LanguageModel model, int[] prompt, IReadOnlyList<int> tokens)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var source = model is Seq2SeqLanguageModel encoder ? encoder.ReadEach([prompt], [], [0])[0] : null;
        int[] ids = model is Seq2SeqLanguageModel reader ? [reader.StartToken, .. tokens] : [.. prompt, .. tokens];
        using var cache = new KeyValueCache(model.LayerCount);
        using var batch = ForwardBatch.Cached([new CachedSequence(ids, cache, [], source, 0)], CPU);
        return model.Logits(model.Hidden(batch), batch).select(0, ids.Length - 1).log_softmax(-1).data<float>().ToArray();
    }

    /// <summary>transformers' search by its definition: every array has a place for every beam, and what does not count has a score of −1e9.</summary>
    private static List<(int[] Tokens, float Score)> Defined(LanguageModel model, int[] prompt, BeamParameters parameters, HashSet<int> stops, int most)
    {
        var width = parameters.Width;
        var running = Enumerable.Range(0, width).Select(i => (Tokens: Array.Empty<int>(), Score: i == 0 ? 0 : Never)).ToList();
        var finished = Enumerable.Range(0, width).Select(_ => (Tokens: Array.Empty<int>(), Score: Never, IsFinished: false)).ToList();
        var (improves, goesOn) = (true, true);
        for (var length = 1; goesOn; length++)
        {
            var candidates = running.SelectMany(beam => Row(model, prompt, beam.Tokens).Select((score, token) => (Tokens: (int[])[.. beam.Tokens, token], Score: beam.Score + score)))
                .OrderByDescending(candidate => candidate.Score).Take(Math.Max(2, 1 + stops.Count) * width).ToList();
            var ends = candidates.Select(candidate => length == most || stops.Contains(candidate.Tokens[^1])).ToList();
            var closed = !improves || (parameters.Stop is BeamStop.Full && finished.All(text => text.IsFinished));
            finished = [.. finished.Concat(candidates.Select((candidate, i) => (
                    candidate.Tokens,
                    Score: (candidate.Score / MathF.Pow(length, (float)parameters.LengthPenalty)) + (closed ? Never : 0) + (ends[i] && i < width ? 0 : Never),
                    IsFinished: ends[i] && i < width)))
                .OrderByDescending(text => text.Score).Take(width)];
            running = [.. candidates.Select((candidate, i) => (candidate.Tokens, Score: candidate.Score + (ends[i] ? Never : 0))).OrderByDescending(beam => beam.Score).Take(width)];

            var hypothetical = parameters is { Stop: BeamStop.NoneCanBeBetter, LengthPenalty: > 0 } ? most : length;
            var best = running[0].Score / MathF.Pow(hypothetical, (float)parameters.LengthPenalty);
            improves &= finished.Any(text => best > (text.IsFinished ? finished[^1].Score : Never));
            goesOn = improves && !(parameters.Stop is BeamStop.Full && finished.All(text => text.IsFinished)) && !ends.All(end => end);
        }

        return [.. finished.Select(text => (text.Tokens, text.Score))];
    }
}
