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
    public static IModelCase Of(Golden golden, PretrainedModel model, bool keepsPadding = false)
    {
        var kind = golden.Meta.GetProperty("kind").GetString();
        return (kind, model) switch
        {
            ("causal", CausalLanguageModel causal) => new CausalCase(golden, causal) { KeepsPadding = keepsPadding },
            ("seq2seq", Seq2SeqLanguageModel seq2seq) => new Seq2SeqCase(golden, seq2seq),
            ("seqcls" or "tokcls" or "mlm" or "qa" or "features", ClassificationModel classifier) => new ClassificationCase(golden, classifier),
            _ => throw new NotSupportedException($"Cases of kind '{kind}' are not supported yet."),
        };
    }

    /// <summary>
    /// Padding goes through the model like any token, as it does in PEFT, where a method looks at all tokens of a batch together (Lily's
    /// mean of routes, VeLoRA's mean direction).
    /// </summary>
    public bool KeepsPadding { get; init; }

    /// <summary>Logits at every token against the tensor <paramref name="name"/>; the loss too where the case has one for it.</summary>
    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var (rows, places) = Rows();
        using var batch = Batch(rows, adapters);

        var logits = _model.Logits(_model.Hidden(batch), batch);

        var expected = _golden[name].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        if (KeepsPadding)
        {
            var kept = _golden["attention_mask"].flatten().nonzero().flatten();
            (logits, expected) = (logits.index_select(0, kept), expected.index_select(0, kept));
        }

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
        var (rows, places) = Rows();
        using var batch = Batch(rows, adapters);
        return Loss(_model.Logits(_model.Hidden(batch), batch), places);
    }

    private (List<int[]> Rows, List<long[]> Places) Rows()
    {
        if (!KeepsPadding)
        {
            return _golden.Rows();
        }

        using var scope = NewDisposeScope();
        using var all = ones_like(_golden["attention_mask"]);
        return _golden.Rows(all);
    }

    private ForwardBatch Batch(List<int[]> rows, IReadOnlyList<Adapter> adapters)
    {
        var batch = ForwardBatch.Packed(rows, adapters, CPU);
        if (KeepsPadding)
        {
            batch.Attention = new PaddedAttention(_golden["attention_mask"]);
        }

        return batch;
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
