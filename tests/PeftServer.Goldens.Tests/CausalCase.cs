using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>The checks that every causal language model shares, with and without an adapter.</summary>
internal sealed class CausalCase : IModelCase
{
    private readonly Golden _golden;
    private readonly CausalLanguageModel _model;

    private CausalCase(Golden golden, CausalLanguageModel model) => (_golden, _model) = (golden, model);

    /// <summary>Fails, saying so, for a kind of case that nothing here computes.</summary>
    public static IModelCase Of(Golden golden, PretrainedModel model)
    {
        var kind = golden.Meta.GetProperty("kind").GetString();
        return (kind, model) switch
        {
            ("causal", CausalLanguageModel causal) => new CausalCase(golden, causal),
            ("seq2seq", Seq2SeqLanguageModel seq2seq) => new Seq2SeqCase(golden, seq2seq),
            ("seqcls" or "tokcls" or "mlm" or "qa" or "features", ClassificationModel classifier) => new ClassificationCase(golden, classifier),
            _ => throw new NotSupportedException($"Cases of kind '{kind}' are not supported yet."),
        };
    }

    /// <summary>Logits at every token against the tensor <paramref name="name"/>; the loss too where the case has one for it.</summary>
    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var (rows, places) = _golden.Rows();
        using var batch = ForwardBatch.Packed(rows, adapters, CPU);

        var logits = _model.Logits(_model.Hidden(batch), batch);

        var expected = _golden[name].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        Golden.ShouldAgree(name, logits, expected, tolerance);
        if (name == "logits")
        {
            Golden.ShouldAgree("loss", Loss(logits, places).unsqueeze(0), _golden["loss"], tolerance);
        }
    }

    /// <summary>
    /// Mean cross-entropy of the next labels, with gradients; <paramref name="places"/> are the tokens' places in the padded batch.
    /// </summary>
    public Tensor Loss(Tensor logits, List<long[]> places)
    {
        var labels = _golden["labels"].data<long>().ToArray();
        var (sources, targets) = (new List<long>(), new List<long>());
        var token = 0;
        foreach (var at in places)
        {
            for (var i = 0; i < at.Length; i++, token++)
            {
                if (i + 1 < at.Length && labels[at[i + 1]] != -100)
                {
                    sources.Add(token);
                    targets.Add(labels[at[i + 1]]);
                }
            }
        }

        return F.cross_entropy(logits.index_select(0, tensor(sources.ToArray())).to(ScalarType.Float32), tensor(targets.ToArray()));
    }

    /// <summary>One training forward: the loss under <paramref name="adapters"/>, with gradients.</summary>
    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters)
    {
        var (rows, places) = _golden.Rows();
        using var batch = ForwardBatch.Packed(rows, adapters, CPU);
        return Loss(_model.Logits(_model.Hidden(batch), batch), places);
    }

    /// <summary>Eight greedy tokens with a cache, end-of-sequence (id 1) left out, for all prompts in one batch.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var prompts = _golden.Rows("prompt_ids", "prompt_mask").Rows;
        var caches = prompts.ConvertAll(_ => new KeyValueCache(_model.LayerCount));
        var (next, generated) = (prompts, prompts.ConvertAll(_ => new List<int>()));
        for (var step = 0; step < 8; step++)
        {
            using var batch = ForwardBatch.Cached([.. next.Select((tokens, i) => new CachedSequence(tokens, caches[i], adapters))], CPU);
            var lasts = batch.Starts.Skip(1).Select(end => end - 1L).ToArray();
            var logits = _model.Logits(_model.Hidden(batch).index_select(0, tensor(lasts)), batch);
            logits.narrow(1, 1, 1).fill_(Engine.Native.TensorArithmetic.NegativeInfinity);
            var chosen = logits.argmax(-1).data<long>().ToArray();
            for (var i = 0; i < caches.Count; i++)
            {
                caches[i].Advance(next[i].Length);
                generated[i].Add((int)chosen[i]);
            }

            next = [.. chosen.Select(token => new[] { (int)token })];
        }

        caches.ForEach(cache => cache.Dispose());
        var width = (int)_golden["prompt_ids"].size(1);
        var expected = _golden["greedy_ids"];
        for (var i = 0; i < prompts.Count; i++)
        {
            var row = expected.select(0, i).data<long>().ToArray();
            generated[i].Select(token => (long)token).ShouldBe(row[width..], $"greedy tokens of row {i}");
        }
    }
}
