using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>The checks of models that read one text and write another: teacher forcing, then greedy tokens.</summary>
internal sealed class Seq2SeqCase(Golden golden, Seq2SeqLanguageModel model) : IModelCase
{
    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var logits = Logits(adapters);

        Golden.ShouldAgree(name, logits, golden[name].flatten(0, 1), tolerance);
        if (name == "logits")
        {
            Golden.ShouldAgree("loss", Loss(logits).unsqueeze(0), golden["loss"], tolerance);
        }
    }

    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters) => Loss(Logits(adapters));

    /// <summary>Eight greedy tokens with a cache, end-of-sequence (id 1) left out; each text is read by itself.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var sources = golden.Rows().Rows.ConvertAll(text => model.Read([text], adapters));
        var caches = sources.ConvertAll(_ => new KeyValueCache(model.LayerCount));
        var written = sources.ConvertAll(_ => new List<int> { model.StartToken });
        for (var step = 0; step < 8; step++)
        {
            using var batch = ForwardBatch.Cached([.. written.Select((tokens, i) => new CachedSequence([tokens[^1]], caches[i], adapters, sources[i]))], CPU);
            var logits = model.Logits(model.Hidden(batch), batch);
            logits.narrow(1, 1, 1).fill_(Engine.Native.TensorArithmetic.NegativeInfinity);
            var chosen = logits.argmax(-1).data<long>().ToArray();
            for (var i = 0; i < caches.Count; i++)
            {
                caches[i].Advance(1);
                written[i].Add((int)chosen[i]);
            }
        }

        caches.ForEach(cache => cache.Dispose());
        sources.ForEach(source => source.Dispose());
        for (var i = 0; i < written.Count; i++)
        {
            written[i].Select(token => (long)token).ShouldBe(golden["greedy_ids"].select(0, i).data<long>().ToArray(), $"greedy tokens of row {i}");
        }
    }

    /// <summary>Scores of every label: the decoder reads the labels one place to the right, padding where there is none.</summary>
    private Tensor Logits(IReadOnlyList<Adapter> adapters)
    {
        var width = (int)golden["labels"].size(1);
        var rows = golden["labels"].data<long>().ToArray().Chunk(width)
            .Select(row => row.SkipLast(1).Select(label => label == -100 ? 0 : (int)label).Prepend(model.StartToken).ToArray());
        using var source = model.Read(golden.Rows().Rows, adapters);
        using var batch = ForwardBatch.Packed([.. rows], adapters, CPU, source: source);
        return model.Logits(model.Hidden(batch), batch); // [rows · width, vocabulary]
    }

    private Tensor Loss(Tensor logits) => F.cross_entropy(logits.to(ScalarType.Float32), golden["labels"].flatten());
}
