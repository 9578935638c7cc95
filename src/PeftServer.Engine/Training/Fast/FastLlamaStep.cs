using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// The fast tier: forward and backward of Llama with LoRA, written by hand over <see cref="BlockKernels"/>, without autograd. The plain
/// tier is its measure: a test compares losses and gradients of both.
/// </summary>
internal sealed class FastLlamaStep : ITrainingStep
{
    /// <summary>Rows of scores that are in memory at once: a vocabulary of 128,256 makes a gigabyte of them.</summary>
    private int HeadChunk => _mode is ActivationMode.Keep ? 4096 : 2048;

    /// <summary>
    /// Tokens that go through the model at once in lean mode. Gradients add up, so the result is that of the whole batch, and
    /// products of 4,096 rows are about as fast as longer ones.
    /// </summary>
    private const int LeanTokens = 4096;

    private readonly LlamaForCausalLM _model;
    private readonly BlockKernels _kernels;
    private readonly List<FastLlamaLayer> _layers;
    private readonly ILoraPacker _packer;
    private readonly ActivationMode _mode;

    public FastLlamaStep(LlamaForCausalLM model, Adapter adapter, BlockKernels kernels, ActivationMode mode)
    {
        (_model, _kernels, _mode) = (model, kernels, mode);
        using var frozen = no_grad();
        _layers = [.. model.model.layers.Select(layer => new FastLlamaLayer(layer, adapter, kernels))];
        _packer = kernels.CreatePacker([.. _layers.SelectMany(layer => layer.Blocks)]);
        AdapterChanged();
    }

    public string Description => $"hand-written kernels, {(_mode is ActivationMode.Keep ? "activations kept" : "activations computed again")}";

    /// <summary>Why a model and an adapter cannot take this tier; null when they can.</summary>
    public static string? Obstacle(CausalLanguageModel model, Adapter adapter, double dropout) => (model, adapter) switch
    {
        (not LlamaForCausalLM, _) => $"{model.Config.ModelType} has no hand-written step yet",
        (_, not LoraAdapter) => $"{adapter.Config.PeftType} has no hand-written step yet",
        _ when adapter.Model != model => "layers are replicated",
        _ when dropout > 0 => "lora_dropout is not 0",
        _ when adapter.Parts.Any(entry => entry.Part is not LoraProjection { IsPlain: true } || entry.Site is not Linear { bias: null } || entry.Site.Path == model.OutputHead)
            => "the adapter has parts beside LoRA on the blocks' linear layers",
        (LlamaForCausalLM llama, _) when llama.model.layers[0].self_attn.q_proj.bias is not null || llama.model.layers[0].mlp.up_proj.bias is not null => "the model's linear layers have biases",
        _ => null,
    };

    public (Tensor Loss, Tensor Correct) ForwardBackward(SftBatch batch, double scale, Generator? dropout)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var (loss, correct) = (zeros([], device: _model.Device), zeros([], device: _model.Device));
        foreach (var pass in _mode is ActivationMode.Keep ? [batch] : batch.Split(LeanTokens))
        {
            Pass(pass, scale, loss, correct);
        }

        return (loss.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }

    private void Pass(SftBatch batch, double scale, Tensor loss, Tensor correct)
    {
        using var scope = NewDisposeScope();
        var device = _model.Device;
        using var packed = ForwardBatch.Packed(batch.Sequences, [], device);
        var (cos, sin) = _model.model.Rotary.At(packed, ScalarType.Float32);
        var starts = batch.Starts;
        var fast = new FastBatch(
            cos.squeeze(1), sin.squeeze(1), new PackedBorders(starts, tensor(starts, dtype: ScalarType.Int32, device: device)));

        var states = new Stack<LayerState>();
        var x = _model.model.embed_tokens.Frozen(packed.Ids); // [n, hidden]
        Tensor? y = null;
        foreach (var layer in _layers)
        {
            var (nextX, nextY, state) = layer.Forward(x, y, fast, _mode);
            y?.Dispose();
            if (_mode is ActivationMode.Recompute && states.Count > 0)
            {
                x.Dispose(); // it is in this block's input now
            }

            state.Attention?.Projected.Dispose(); // it is in the middle now
            states.Push(state);
            (x, y) = (nextX, nextY);
        }

        var grad = Head(x, y!, batch, scale, loss, correct);
        y!.Dispose();
        if (_mode is ActivationMode.Recompute)
        {
            x.Dispose();
        }

        for (var i = _layers.Count - 1; i >= 0; i--)
        {
            using var inner = NewDisposeScope();
            var state = states.Pop();
            var below = _layers[i].Backward(grad, state, fast, _mode, needsInput: i > 0);
            grad.Dispose();
            state.Dispose();
            if (below is not null)
            {
                grad = below.MoveToOuterDisposeScope();
            }
        }
    }

    public void AdapterChanged()
    {
        using var frozen = no_grad();
        _packer.Pack();
    }

    public void Dispose()
    {
        _packer.Dispose();
        _layers.ForEach(layer => layer.Dispose());
    }

    /// <summary>Final norm, scores and loss of the targets in pieces; gives the gradient of the last block's output.</summary>
    private Tensor Head(Tensor x, Tensor y, SftBatch batch, double scale, Tensor loss, Tensor correct)
    {
        using var scope = NewDisposeScope();
        var (norm, head, device) = (_model.model.norm, _model.lm_head.weight.Value, x.device);
        var (sum, normed, rstd) = (empty_like(x), empty_like(x), empty(x.size(0), dtype: ScalarType.Float32, device: device));
        _kernels.AddRmsNorm(x, y, norm.weight.Value, norm.Eps, sum, normed, rstd);

        var dNormed = zeros_like(normed);
        for (var start = 0; start < batch.Targets.Length; start += HeadChunk)
        {
            using var inner = NewDisposeScope();
            var end = Math.Min(start + HeadChunk, batch.Targets.Length);
            var sources = tensor(batch.Sources[start..end], device: device); // [m]
            var logits = F.linear(normed.index_select(0, sources), head); // [m, vocab]
            _kernels.CrossEntropy(logits, tensor(batch.Targets[start..end], device: device), loss, correct, scale);
            dNormed.index_copy_(0, sources, logits.mm(head)); // a token is the source of one target at most
        }

        var grad = empty_like(x);
        _kernels.RmsNormBackward(dNormed, sum, norm.weight.Value, rstd, null, grad);
        return grad.MoveToOuterDisposeScope();
    }
}

/// <summary>What becomes of a block's activations between forward and backward.</summary>
internal enum ActivationMode
{
    /// <summary>They stay in memory.</summary>
    Keep,

    /// <summary>Only the block's input stays; the rest is computed again.</summary>
    Recompute,
}
