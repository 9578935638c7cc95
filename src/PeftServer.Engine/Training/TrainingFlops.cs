using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training;

/// <summary>
/// Floating-point operations that a batch needs, forward and backward, as appendix B of <see href="https://arxiv.org/abs/2204.02311">PaLM</see> and nanoGPT's
/// <c>estimate_mfu</c> count them, a multiplication and an addition as two:
/// <code>
/// for a token in a sequence of T:  4 F + 6 P + 12 L W T
/// </code>
/// F: values of the frozen matrices it is multiplied with. 2 F forward and 2 F for the gradient of the input; the third product of full fine-tuning, the gradient of the
/// weight, is not needed. P: values of the trained ones, which take all three; where all train this is their 6 N + 12 L H Q T. L layers of attention of width
/// W = heads × head width, 4 L W T forward and twice that backward, the whole square as there, windows cut to their width. Only tokens that are scored go through the head. A pass without
/// gradients (DPO's reference) takes 2 F + 4 L W T. Of a mixture of experts those count that a token goes to.
/// <para>
/// As in MFU's definition, what is computed beyond the model is not counted: activations computed again, weights formed from an adapter's parts, decoding of packed weights,
/// the completions that GRPO writes.
/// </para>
/// </summary>
public sealed class TrainingFlops
{
    private static readonly string[] LayerFields = ["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"];
    private static readonly string[] HeadFields = ["num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"];

    private readonly (double Frozen, double Trained) _body;
    private readonly (double Frozen, double Trained) _decoder;
    private readonly (double Frozen, double Trained) _head;
    private readonly double _attention; // L · W
    private readonly int? _window;
    private readonly int _promptRows;

    /// <param name="model">The base; shapes will do.</param>
    /// <param name="adapter">What trains.</param>
    public TrainingFlops(PretrainedModel model, Adapter adapter)
    {
        var config = model.Config;
        var parts = adapter.Parts.ToLookup(entry => entry.Site, entry => entry.Part);
        var active = ActiveExperts(config);
        foreach (var site in model.Sites().Where(site => site is Projection || (site is Parameter && site.Path.Contains(".experts", StringComparison.Ordinal))))
        {
            var share = site.Path.Contains(".experts", StringComparison.Ordinal) ? active : 1;
            var here = parts[site].ToList();
            var replaced = here.Exists(part => part is TrainableCopy or BaseLayerCopy or Adapters.LnTuning.NormCopy);
            var work = (
                Frozen: replaced ? 0 : share * site.Weight.ElementCount,
                Trained: share * here.SelectMany(part => part.State).Where(state => state.Weight.Trainable).Sum(state => (double)state.Weight.ElementCount));
            Add(ref site.Path == model.OutputHead ? ref _head : ref IsDecoder(site, model) ? ref _decoder : ref _body, work);
        }

        var heads = Field(config, HeadFields) ?? 1;
        var width = config.Has("head_dim") ? config.Int("head_dim") : config.Has("d_kv") ? config.Int("d_kv") : model.HiddenSize / heads;
        _attention = (double)(Field(config, LayerFields) ?? 1) * heads * width;
        _window = config.Flag("use_sliding_window", true) && !config.Has("layer_types") && config.Has("sliding_window") ? config.Int("sliding_window") : null;
        _promptRows = adapter.PromptRows;
    }

    /// <summary>Operations of one batch.</summary>
    public double Of(BatchShape shape)
    {
        var (tokens, squares) = Count(shape.Lengths);
        var (read, readSquares) = Count(shape.Sources);
        double Matrices((double Frozen, double Trained) work, double count, bool backward) => count * (backward ? (4 * work.Frozen) + (6 * work.Trained) : 2 * work.Frozen);
        double Pass(bool backward) => shape.Sources.Count == 0
            ? Matrices(_body, tokens, backward) + Matrices(_decoder, tokens, backward) + Matrices(_head, shape.Scored, backward) + ((backward ? 12 : 4) * _attention * squares)
            : Matrices(_body, read, backward) + Matrices(_decoder, tokens, backward) + Matrices(_head, shape.Scored, backward)
                + ((backward ? 12 : 4) * _attention * (squares + readSquares + CrossSquares(shape)));
        return Pass(backward: true) + (shape.FrozenPasses * Pass(backward: false));
    }

    private static void Add(ref (double Frozen, double Trained) sum, (double Frozen, double Trained) work) =>
        sum = (sum.Frozen + work.Frozen, sum.Trained + work.Trained);

    private static bool IsDecoder(Site site, PretrainedModel model) => model is Seq2SeqLanguageModel && site.Path.Contains("decoder.", StringComparison.Ordinal);

    private static double CrossSquares(BatchShape shape) => shape.Lengths.Zip(shape.Sources, (target, source) => (double)target * source).Sum();

    private (double Tokens, double Squares) Count(IReadOnlyList<int> lengths)
    {
        var (tokens, squares) = (0.0, 0.0);
        foreach (var length in lengths)
        {
            double all = length + _promptRows;
            tokens += all;
            squares += all * Math.Min(all, _window ?? all);
        }

        return (tokens, squares);
    }

    /// <summary>Share of the experts that a token goes to.</summary>
    private static double ActiveExperts(PretrainedConfig config) =>
        Field(config, ["num_local_experts", "num_experts"]) is { } count && config.Has("num_experts_per_tok") ? (double)config.Int("num_experts_per_tok") / count : 1;

    private static int? Field(PretrainedConfig config, string[] names) => names.Where(config.Has).Select(name => (int?)config.Int(name)).FirstOrDefault();
}

/// <summary>What goes through the model together.</summary>
/// <param name="Lengths">Tokens of each sequence, of a decoder's where there is an encoder too.</param>
/// <param name="Scored">Tokens that go through the head.</param>
public sealed record BatchShape(IReadOnlyList<int> Lengths, int Scored)
{
    /// <summary>What an encoder reads before, a sequence each; empty where there is none.</summary>
    public IReadOnlyList<int> Sources { get; init; } = [];

    /// <summary>Passes without gradients over the same, such as a reference's.</summary>
    public int FrozenPasses { get; init; }

    /// <summary>Tokens that go through the model, each once.</summary>
    public int TokenCount => Lengths.Sum() + Sources.Sum();

    internal static BatchShape Of(SftBatch batch, int frozenPasses = 0) =>
        new([.. batch.Sequences.Select(sequence => sequence.Length)], batch.LossCount) { FrozenPasses = frozenPasses };
}
