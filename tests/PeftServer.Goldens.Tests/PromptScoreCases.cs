using PeftServer.Engine.Generation;

namespace PeftServer.Goldens.Tests;

/// <summary>What the engine says of a prompt's own tokens, against the logits of the reference.</summary>
public sealed class PromptScoreCases
{
    private const int Rivals = 3;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public static TheoryData<string> Models => [.. GoldenFolder.Cases("models", "meta.json").Where(IsCausal)];

    [Theory]
    [MemberData(nameof(Models))]
    public async Task Generate_PromptLogProbabilities_AreTheReferences(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu" });
        using var narrow = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu", MaxBatchTokens = 3 });

        await CheckAsync(engine, golden, "logits", null);
        await CheckAsync(narrow, golden, "logits", null); // a prompt in pieces
    }

    [Theory]
    [InlineData("adapters", "lora__llama")] // weights of the body
    [InlineData("adapters", "lora_lm_head")] // and of the head
    [InlineData("adapters", "prompt_tuning")] // rows before the text
    [InlineData("adapters", "prefix_tuning")] // keys and values before it
    [InlineData("adapterhub", "noreft__gpt2")] // the whole text is read again for every token
    public async Task Generate_PromptLogProbabilitiesUnderAnAdapter_AreTheReferences(string kind, string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf(kind, name));
        using var plain = new Golden(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = plain.Folder, Device = "cpu" });

        await CheckAsync(engine, golden, "logits_trained", new AdapterReference(name, Path.Combine(golden.Folder, "trained")));
    }

    [Fact]
    public async Task Generate_NoTokensAsked_ReadsThePromptAndEnds()
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", "llama"));
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = golden.Folder, Device = "cpu" });
        var most = (await engine.Loaded).MaxLength;

        var tokens = await engine.Generate(
            new GenerationRequest { Prompt = [.. Enumerable.Repeat(5, most)], Sampling = new SamplingParameters { MaxTokens = 0 }, PromptLogProbabilities = 0 }, Now)
            .ReadAllAsync(Now).ToListAsync(Now);

        var only = tokens.ShouldHaveSingleItem();
        (only.Id, only.FinishReason).ShouldBe((null, FinishReason.NothingAsked));
        only.Prompt!.Count.ShouldBe(most - 1);
        only.Prompt.ShouldAllBe(token => token.Top.Count == 0);
    }

    private static bool IsCausal(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        return golden.Meta.TryGetProperty("kind", out var kind) && kind.GetString() == "causal";
    }

    private static async Task CheckAsync(GenerationEngine engine, Golden golden, string name, AdapterReference? adapter)
    {
        var (rows, places) = golden.Rows();
        var answers = await Task.WhenAll(rows.Select(row => engine.Generate(
            new GenerationRequest { Prompt = row, Adapter = adapter, Sampling = new SamplingParameters { MaxTokens = 2, Temperature = 0 }, PromptLogProbabilities = Rivals }, Now)
            .ReadAllAsync(Now).ToListAsync(Now).AsTask()));

        using var scope = NewDisposeScope();
        var logits = golden[name];
        var before = logits.size(1) - golden["input_ids"].size(1); // rows of a prompt
        for (var row = 0; row < rows.Count; row++)
        {
            var at = tensor(places[row].SkipLast(1).Select(place => place + ((row + 1) * before)).ToArray()); // the last foretells what is not there
            var expected = logits.flatten(0, 1).index_select(0, at).log_softmax(-1); // [n - 1, vocab]
            var prompt = answers[row][0].Prompt!;

            prompt.Select(token => token.Id).ShouldBe(rows[row].Skip(1));
            answers[row].Skip(1).ShouldAllBe(token => token.Prompt == null);
            var own = expected.gather(1, tensor(rows[row].Skip(1).Select(id => (long)id).ToArray()).unsqueeze(1)); // [n - 1, 1]
            Golden.ShouldAgree($"{name} of {Path.GetFileName(golden.Folder)}", tensor(prompt.Select(token => token.LogProbability).ToArray()).unsqueeze(1), own, 1e-4);
            prompt.Select(token => token.Rank).ShouldBe(expected.gt(own).sum(1).data<long>().Select(likelier => (int)likelier + 1));
            var (top, ids) = expected.topk(Rivals, 1);
            prompt.SelectMany(token => token.Top.Select(rival => (long)rival.Id)).ShouldBe(ids.contiguous().data<long>());
            Golden.ShouldAgree("rivals", tensor(prompt.SelectMany(token => token.Top.Select(rival => rival.LogProbability)).ToArray()).view(-1, Rivals), top, 1e-4);
        }
    }
}
