using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// The fast tier: forward and backward of decoders with LoRA, written by hand over <see cref="BlockKernels"/>, without autograd. The plain
/// tier is its measure: a test compares losses and gradients of both.
/// </summary>
internal sealed class FastLlamaStep : ITrainingStep
{
    /// <summary>Tokens whose scores are made at once: those of a vocabulary of 128,256 take a gigabyte for 4,096.</summary>
    public const int ScoredAtOnce = 4096;

    /// <summary>The same where memory is short.</summary>
    public const int ScoredAtOnceLean = 2048;

    private readonly FastDecoder _model;
    private readonly NormWeights _norm;
    private readonly Tensor? _headBias; // [vocabulary, rounded up]
    private readonly KeptScalar _firstPosition;
    private readonly BlockKernels _kernels;
    private readonly List<FastLlamaLayer> _layers;
    private readonly ILoraPacker _packer;
    private readonly ActivationPlanner _planner;
    private readonly HostBuffers _host = new();
    private readonly Action<string>? _report;
    private ActivationPlan? _reported;

    /// <param name="model">The base. Its blocks' weights are laid out anew: afterwards they are views.</param>
    /// <param name="adapter">A LoRA on it.</param>
    /// <param name="kernels">For the device of the model.</param>
    /// <param name="plan">What becomes of activations; absent: chosen for each batch by the memory that is free then.</param>
    /// <param name="report">Told which plan is followed and why, when it changes.</param>
    public FastLlamaStep(CausalLanguageModel model, Adapter adapter, BlockKernels kernels, ActivationPlan? plan = null, Action<string>? report = null)
    {
        (_kernels, _report) = (kernels, report);
        _model = FastDecoder.Of(model, out var obstacle) ?? throw new NotSupportedException($"{obstacle}.");
        using var frozen = no_grad();
        _norm = NormWeights.Of(_model.Norm);
        _firstPosition = new KeptScalar(_model.FirstPosition);
        _headBias = _model.Head.bias is { } bias ? F.pad(bias.Value, [0, ScoreColumns - bias.Shape[0]]).DetachFromDisposeScope() : null;
        _layers = [.. _model.Blocks.Select(block => new FastLlamaLayer(block, adapter, kernels))];
        _packer = kernels.CreatePacker([.. _layers.SelectMany(layer => layer.Blocks)]);
        var (memory, device) = (new StepMemory(_model, adapter, QuantizationOf(_model)), model.Device);
        _planner = plan is { } told ? ActivationPlanner.Always(told, memory, device) : ActivationPlanner.ForFreeMemory(memory, device);
        AdapterChanged();
    }

    public string Description => "the hand-written step";

    /// <summary>Why a model and an adapter cannot take this tier; null when they can.</summary>
    public static string? Obstacle(CausalLanguageModel model, Adapter adapter, double dropout) => (model, adapter) switch
    {
        _ when FastDecoder.Of(model, out var unknown) is null => unknown,
        (_, not LoraAdapter) => $"{adapter.Config.PeftType} has no hand-written step yet",
        _ when adapter.Model != model => "layers are replicated",
        _ when dropout > 0 => "lora_dropout is not 0",
        _ when adapter.Parts.Any(entry => entry.Part is not LoraProjection { IsPlain: true } || entry.Site is not Projection || entry.Site.Path == model.OutputHead)
            => "the adapter has parts beside LoRA on the blocks' linear layers",
        _ => null,
    };

    public (Tensor Loss, Tensor Correct) ForwardBackward(SftBatch batch, double scale, Generator? dropout)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var (loss, correct) = (zeros([], device: _model.Model.Device), zeros([], device: _model.Model.Device));
        var plan = PlanFor(BatchShape.Of(batch));
        try
        {
            foreach (var pass in batch.Split(plan.PassTokens))
            {
                Pass(pass, plan.Mode, scale, loss, correct);
            }
        }
        finally
        {
            _kernels.Join();
        }

        return (loss.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }

    private static BaseQuantization QuantizationOf(FastDecoder model) => model.Blocks[^1].O.Weight.Packed switch
    {
        Nf4Matrix => BaseQuantization.Nf4,
        Fp8Matrix => BaseQuantization.Fp8,
        _ => BaseQuantization.None,
    };

    private ActivationPlan PlanFor(BatchShape batch)
    {
        var plan = _planner.For(batch);
        if (plan != _reported)
        {
            _reported = plan;
            _report?.Invoke($"The hand-written step: {plan}; {_planner.Reason(plan, batch)}.");
        }

        return plan;
    }

    private void Pass(SftBatch batch, ActivationMode mode, double scale, Tensor loss, Tensor correct)
    {
        using var scope = NewDisposeScope();
        var device = _model.Model.Device;
        using var packed = ForwardBatch.Packed(batch.Sequences, [], device);
        var turns = _model.Rotaries.Select(rotary => rotary.At(packed, ScalarType.Float32)).Select(angle => (angle.Cos.squeeze(1), angle.Sin.squeeze(1))).ToList();
        var starts = batch.Starts;
        using var fast = new FastBatch(turns, new PackedBorders(starts, tensor(starts, dtype: ScalarType.Int32, device: device)));

        var states = new Stack<LayerState>();
        var x = _model.Embedding.Frozen(packed.Ids); // [n, hidden]
        if (_model.EmbeddingScale != 1)
        {
            x.Scale(_model.EmbeddingScale);
        }

        if (_model.Positions is { } table)
        {
            x.Add(table.Frozen(packed.Positions.add(_firstPosition)));
        }

        Tensor? y = null;
        foreach (var layer in _layers)
        {
            var (nextX, nextY, state) = layer.Forward(x, y, fast, mode);
            y?.Dispose();
            x.Dispose(); // what is needed of it is in the state
            states.Push(mode is ActivationMode.Offload ? state with { Input = _host.Store(state.Input) } : state);
            (x, y) = (nextX, nextY);
        }

        var grad = Head(x, y!, batch, mode is ActivationMode.Keep ? ScoredAtOnce : ScoredAtOnceLean, scale, loss, correct);
        y!.Dispose();
        x.Dispose();
        for (var i = _layers.Count - 1; i >= 0; i--)
        {
            using var inner = NewDisposeScope();
            var state = states.Pop();
            state = mode is ActivationMode.Offload ? state with { Input = _host.Load(state.Input, device) } : state;
            _layers[i].Backward(grad, state, fast, mode, needsInput: i > 0);
            state.Dispose();
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
        _host.Dispose();
        _layers.ForEach(layer => layer.Dispose());
        _norm.Dispose();
        _headBias?.Dispose();
    }

    /// <summary>Columns of a row of scores: rows begin at whole groups of eight, as the kernels read them.</summary>
    private long ScoreColumns => (_model.Head.OutFeatures + 7) / 8 * 8;

    /// <summary>
    /// Final norm, scores and loss of the targets, so many at a time;
    /// gives the gradient of the last block's output, in rows with room beside it.
    /// </summary>
    private Tensor Head(Tensor x, Tensor y, SftBatch batch, int chunk, double scale, Tensor loss, Tensor correct)
    {
        using var scope = NewDisposeScope();
        var (head, device) = (_model.Head.weight.Value, x.device);
        var (sum, normed, stats) = (empty_like(x), empty_like(x), _norm.NewStats(x.size(0), device));
        _kernels.AddNorm(x, y, _norm, sum, normed, stats);

        var dNormed = zeros_like(normed);
        for (var start = 0; start < batch.Targets.Length; start += chunk)
        {
            using var inner = NewDisposeScope();
            var end = Math.Min(start + chunk, batch.Targets.Length);
            var sources = tensor(batch.Sources[start..end], device: device); // [m]
            var rows = empty([end - start, ScoreColumns], dtype: x.dtype, device: device);
            var logits = rows.narrow(1, 0, _model.Head.OutFeatures); // [m, vocab]
            Aten.Product(normed.index_select(0, sources), head.t(), logits);
            if (_headBias is not null)
            {
                _kernels.AddBias(rows, _headBias);
            }

            _kernels.CrossEntropy(logits, tensor(batch.Targets[start..end], device: device), loss, correct, scale, _model.Scores);
            dNormed.index_copy_(0, sources, logits.mm(head)); // a token is the source of one target at most
        }

        var grad = empty([x.size(0), x.size(1) + _layers.Max(layer => layer.GradientRoom)], dtype: x.dtype, device: device); // [n, hidden + room]
        _kernels.NormBackward(dNormed, sum, _norm, stats, null, grad.narrow(1, 0, x.size(1)));
        return grad.MoveToOuterDisposeScope();
    }
}
