using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Cartridge;
using PeftServer.Engine.Adapters.Cpt;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// On every causal model: a prompt that is the embeddings of tokens, and a cache that is their keys and values, say what the tokens themselves
/// would. PEFT has one case of each; this is what the other architectures are held to.
/// </summary>
public sealed class PromptOfTokensTests
{
    private static readonly int[] Before = [5, 6, 7, 8];
    private static readonly int[][] Rows = [[9, 10, 11, 12, 13], [14, 15, 16]];

    public static TheoryData<string> Models => [.. GoldenFolder.Cases("models", "golden.safetensors").Where(name =>
        PretrainedModel.Plan(GoldenFolder.PathOf("models", name)) is CausalLanguageModel)];

    [Theory]
    [MemberData(nameof(Models))]
    public void Prompt_OfEmbeddings_SaysWhatTheTokensSay(string name)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = Load(name);
        if (name == "opt350m")
        {
            // Its embeddings are narrower than its layers: PEFT's rows, as wide as the layers, do not fit.
            Should.Throw<AdapterException>(() => new CptConfig { CptTokenIds = Before }.CreateAdapter(model)).Field.ShouldBe("token_dim");
            return;
        }

        using var adapter = new CptConfig { CptTokenIds = Before }.CreateAdapter(model);
        adapter.Initialize(1);

        using var batch = ForwardBatch.Packed(Rows, [adapter], CPU);

        Golden.ShouldAgree("logits", Own(model, batch), Expected(model), 1e-4);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Prefix_OfKeysAndValues_SaysWhatTheTokensSay(string name)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = Load(name);
        using var cache = new KeyValueCache(model.LayerCount);
        using (var first = ForwardBatch.Cached([new CachedSequence(Before, cache, [])], CPU))
        {
            model.Hidden(first);
            cache.Advance(Before.Length);
        }

        using var adapter = new CartridgeConfig { NumVirtualTokens = Before.Length }.CreateAdapter(model);
        adapter.Initialize(1);
        var rows = cat([.. Enumerable.Range(0, model.LayerCount).SelectMany(layer => Held(cache, layer))], -1); // [P, 2·L·G·D]
        adapter.State.Single().Weight.Set(rows);
        foreach (var (_, weight) in adapter.TrainingState)
        {
            weight.Unload(); // what trains is made anew of what is saved
        }

        adapter.SetTraining(true);
        adapter.SetTraining(false);
        using var packed = ForwardBatch.Packed(Rows, [adapter], CPU);
        Golden.ShouldAgree("logits", Own(model, packed), Expected(model), 1e-4);

        using var one = new KeyValueCache(model.LayerCount);
        using var other = new KeyValueCache(model.LayerCount);
        using var cached = ForwardBatch.Cached([new CachedSequence(Rows[0], one, [adapter]), new CachedSequence(Rows[1], other, [adapter])], CPU);
        Golden.ShouldAgree("cached logits", Own(model, cached), Expected(model), 1e-4);
    }

    private static CausalLanguageModel Load(string name) => (CausalLanguageModel)PretrainedModel.Load(GoldenFolder.PathOf("models", name), CPU, ScalarType.Float32);

    private static IEnumerable<Tensor> Held(KeyValueCache cache, int layer)
    {
        var (keys, values) = cache.Held(layer);
        return [keys.flatten(1), values.flatten(1)];
    }

    /// <summary>Logits of the rows' own tokens.</summary>
    private static Tensor Own(CausalLanguageModel model, ForwardBatch batch)
    {
        var places = batch.PlacesOf([.. Enumerable.Range(0, Rows.Sum(row => row.Length)).Select(i => (long)i)]);
        return model.Logits(model.Hidden(batch).index_select(0, tensor(places)), batch);
    }

    /// <summary>The same where the tokens stand before each row themselves.</summary>
    private static Tensor Expected(CausalLanguageModel model)
    {
        using var batch = ForwardBatch.Packed([.. Rows.Select(row => Before.Concat(row).ToArray())], [], CPU);
        var places = Enumerable.Range(0, Rows.Length).SelectMany(i => Enumerable.Range(batch.Starts[i] + Before.Length, Rows[i].Length)).Select(place => (long)place);
        return model.Logits(model.Hidden(batch).index_select(0, tensor(places.ToArray())), batch);
    }
}
