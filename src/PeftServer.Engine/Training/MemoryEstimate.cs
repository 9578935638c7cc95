using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Ia3;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Training;

/// <summary>
/// Memory of a run at its peak, in parts. On a CPU their sum is what the process holds (VmHWM); on a GPU it is what libtorch's allocator has for tensors there, to which the
/// CUDA context comes.
/// </summary>
/// <param name="Runtime">The program before it has a model: .NET, libtorch, the data. 0 on a GPU.</param>
/// <param name="Weights">The base, with what the hand-written step lays out beside it.</param>
/// <param name="Trained">Trained weights, their gradients, the optimizer's state.</param>
/// <param name="Activations">What the largest micro-batch keeps for its backward and makes on the way.</param>
/// <param name="Step">How gradients are made, and what becomes of activations.</param>
public sealed record MemoryEstimate(long Runtime, long Weights, long Trained, long Activations, string Step)
{
    public long Total => Runtime + Weights + Trained + Activations;
}

/// <summary>Adds up the memory of a run from shapes. Its constants were fitted to peaks of real runs; <c>peftserver bench estimate</c> holds the sum to such.</summary>
internal sealed class MemoryModel
{
    /// <summary>
    /// A heap that frees and takes blocks of ever other sizes holds more than is in use: glibc's half as much again of what a graph keeps, and a quarter where the hand-written
    /// step keeps all activations and frees them in the order in which it took them. Larger blocks than this it takes from the system each for itself, and gives back.
    /// </summary>
    private const double HeapSlack = 1.5;
    private const double OrderlyHeapSlack = 1.25;
    private const long LargestHeapBlock = 32 << 20;

    /// <summary>Code and tables that a process touches once it trains; in bfloat16 those of another library.</summary>
    private const long Touched = 30 << 20;
    private const long TouchedByHalves = 45 << 20;

    /// <summary>Projections whose output is only added to the stream: it is not kept.</summary>
    private static readonly string[] Ends = ["o_proj", "down_proj", "out_proj", "dense_4h_to_h", "c_proj", "fc_out", "fc2", "o", "wo", "w2", "Wo", "out_lin", "lin2"];

    /// <summary>Projections that read what the one before them reads.</summary>
    private static readonly string[] Siblings = ["k_proj", "v_proj", "key", "value", "k", "v", "k_lin", "v_lin", "up_proj", "w3", "wi_1"];

    /// <summary>Projections behind an activation that multiplies them with a gate.</summary>
    private static readonly string[] Gates = ["gate_proj", "gate_up_proj", "w1", "wi_0"];

    private readonly PretrainedModel _model;
    private readonly Adapter _adapter;
    private readonly TrainingSpec _spec;
    private readonly Device _device;
    private readonly FastDecoder? _fast;
    private readonly StepMemory? _step; // of the hand-written step
    private readonly string _plain;
    private readonly double _element;

    public MemoryModel(TrainingSpec spec, PretrainedModel model, Adapter adapter, Device device, ScalarType dtype)
    {
        (_spec, _model, _adapter, _device, _element) = (spec, model, adapter, device, dtype is ScalarType.Float32 ? 4 : 2);
        model.PlanFor(device, dtype);
        var settings = spec.Method.Settings;
        var obstacle = model is not CausalLanguageModel causal || settings is not (SftSettings or PretrainingSettings) ? "the method has no hand-written step"
            : TrainingSteps.Obstacle(causal, adapter, device, spec.Training, spec.Peft, settings as SftSettings ?? new SftSettings());
        _fast = obstacle is null ? FastDecoder.Of((CausalLanguageModel)model, out _) : null;
        _step = _fast is null ? null : new StepMemory(_fast, adapter, spec.Training.Quantization);
        _plain = $"plain tensor code under autograd{(spec.Training.GradientCheckpointing is true ? ", activations computed again" : "")}: {obstacle}";
    }

    private bool OnGpu => _device.type is DeviceType.CUDA;

    /// <summary>The peak of a run with these micro-batches. <paramref name="free"/>: bytes of the device that are there for it.</summary>
    public MemoryEstimate Peak(IReadOnlyCollection<BatchShape> batches, long runtime, long free)
    {
        var (weights, trained) = (Weights(), Trained());
        if (_step is { } step)
        {
            var planner = ActivationPlan.Of(_spec.Training.GradientCheckpointing) is { } told
                ? ActivationPlanner.Always(told, step, _device)
                : ActivationPlanner.ForBytes(Math.Max(0, free - runtime - weights - trained), step, _device);
            var (plan, bytes) = batches.Select(batch => (Plan: planner.For(batch), Batch: batch)).Select(each => (each.Plan, Bytes: step.Of(each.Plan, each.Batch))).MaxBy(each => each.Bytes);
            return new(runtime, weights, trained, Math.Max(Held(bytes, plan.Mode), Otherwise()), $"hand-written step, {plan}");
        }

        return new(runtime, weights, trained, Math.Max((long)batches.Max(Plain), Otherwise()), _plain);
    }

    private long Held(double bytes, ActivationMode mode) => (long)(OnGpu ? bytes : (bytes * (mode is ActivationMode.Keep ? OrderlyHeapSlack : HeapSlack)) + Touched);

    /// <summary>Weights as they lie in memory. Those whose type is the file's are views of the file, which counts once they are read, and stays where they are copied.</summary>
    private long Weights()
    {
        var quantization = _spec.Training.Quantization;
        var packed = quantization is BaseQuantization.None ? 0 : _model.PackableWeights(quantization).Sum(weight => weight.ElementCount);
        var bytes = quantization is BaseQuantization.Nf4 ? 0.5 + (1.0 / 16) : 1; // with a float32 scale to 64 values
        var all = ((_model.ParameterCount - packed) * _element) + (packed * bytes);
        if (_fast is null)
        {
            return (long)all;
        }

        var blocks = _fast.Projections.Sum(site => site.Weight.ElementCount);
        return (long)(all + _step!.RankBytes + (IsMapped && packed == 0 ? blocks * _element : 0));
    }

    /// <summary>Whether weights on a CPU are views of their file: it has as many bytes a value as the computation.</summary>
    private bool IsMapped
    {
        get
        {
            var file = Directory.Exists(_spec.Model) ? Directory.GetFiles(_spec.Model, "*.safetensors").Sum(path => new FileInfo(path).Length) : 0;
            return !OnGpu && Math.Abs((file / (double)_model.ParameterCount) - _element) < 0.5;
        }
    }

    /// <summary>Values, gradients and states.</summary>
    private long Trained() => ((2 * sizeof(float)) + StateBytes(_spec.Training.Optim)) * _adapter.TrainableCount;

    /// <summary>What takes the place of activations while there are none: what an update computes with; before the optimizer's states, the values as they were drawn.</summary>
    private long Otherwise()
    {
        var (count, state) = (_adapter.TrainableCount, StateBytes(_spec.Training.Optim));
        var update = _spec.Training.Optim switch
        {
            OptimizerName.AdamwTorch or OptimizerName.AdamwTorchFused => 0,
            OptimizerName.Adamw8Bit or OptimizerName.AdamwBnb8Bit => // decoded moments, indices of them in 64 bits
                20 * sizeof(float) * Math.Min(Optimizer.UpdatedAtOnce, _adapter.Trainable.Max(weight => weight.ElementCount)),
            OptimizerName.Adafactor or OptimizerName.Muon or OptimizerName.LoraFa or OptimizerName.RiemannianAdamw =>
                5 * sizeof(float) * _adapter.Trainable.Max(weight => weight.ElementCount), // weight by weight
            _ => 4 * sizeof(float) * Math.Min(count, Optimizer.UpdatedAtOnce),
        };
        return Math.Max(update, (sizeof(float) - state) * count);
    }

    /// <summary>Bytes of a micro-batch in tensor code: what its graph keeps, then the scores with their gradients, or one block going back.</summary>
    private double Plain(BatchShape shape)
    {
        var rows = shape.Lengths.Count + shape.Sources.Count;
        double tokens = shape.TokenCount + (rows * _adapter.PromptRows);
        var kept = tokens * Kept() * _element;
        var scores = _model.OutputHead is null ? 0 : 4.0 * ScoredAtOnce(shape) * _model.Config.VocabSize * sizeof(float);
        var (wide, block) = (tokens * Widest() * _element, 4 * tokens * Widest() * _element); // one tensor, and a block going back
        return OnGpu ? kept + Copies() + Math.Max(scores, block)
            : (kept * SlackOf(wide)) + Copies() + Math.Max(scores * SlackOf(scores / 4), block * SlackOf(wide)) + Touched + (_element < 4 ? TouchedByHalves : 0);
    }

    private int ScoredAtOnce(BatchShape shape) => _spec.Training.GradientCheckpointing is true && _spec.Method.Type is (TrainingMethodType.Supervised or TrainingMethodType.Pretraining)
        ? Math.Min(shape.Scored, SftLoss.Piece) : shape.Scored;

    /// <summary>What a CPU's heap holds for tensors of so many bytes each, as a multiple of them.</summary>
    private static double SlackOf(double bytes) => bytes > LargestHeapBlock ? 1.1 : HeapSlack;

    /// <summary>Values that a token leaves behind in the graph; where layers run again, what goes into each, and all of the largest.</summary>
    private double Kept()
    {
        if (_spec.Training.GradientCheckpointing is not true)
        {
            return PerToken(_model.Sites());
        }

        var layers = _model.Sites().ToLookup(site => LayerOf(site.Path));
        var inputs = layers.Count(layer => layer.Key is not null) * (double)_model.HiddenSize;
        return inputs + layers.Max(layer => layer.Key is null ? 0 : PerToken(layer)) + PerToken(layers[null]);
    }

    /// <summary>The path up to the number of the layer; null outside of the stacks.</summary>
    private static string? LayerOf(string path)
    {
        var parts = path.Split('.');
        var number = Array.FindIndex(parts, part => part.All(char.IsAsciiDigit));
        return number < 0 ? null : string.Join('.', parts[..(number + 1)]);
    }

    private double PerToken(IEnumerable<Site> sites)
    {
        var parts = _adapter.Parts.ToLookup(entry => entry.Site, entry => entry.Part);
        var sum = 0.0;
        foreach (var site in sites.Where(site => site.Path != _model.OutputHead && site is not Embedding))
        {
            var (name, here) = (site.Path[(site.Path.LastIndexOf('.') + 1)..], parts[site].ToList());
            if (site is not Projection { InFeatures: var width, OutFeatures: var height })
            {
                sum += NormWidth(site) * (here.Count > 0 ? 2 : 1) * sizeof(float) / _element; // the input of a norm in float32; trained, what it is scaled from too
                continue;
            }

            sum += Ends.Contains(name) ? 0 : height;
            sum += Gates.Contains(name) ? (name == "gate_up_proj" ? height / 2 : height) : 0; // the gate after its activation
            sum += here.Exists(part => part is not Ia3Projection) && !Siblings.Contains(name) ? width : 0; // what a trained weight needs for its gradient
            sum += here.Sum(part => Beside(part, width, height));
            sum += name is "q_proj" or "query" or "q" or "q_lin" or "qkv_proj" or "query_key_value" or "c_attn" or "Wqkv" ? Attention(height) : 0;
        }

        return sum;
    }

    /// <summary>Values of a token that a norm goes over: those of all heads, where it stands behind the projection of queries or keys.</summary>
    private long NormWidth(Site site)
    {
        var at = site.Path.LastIndexOf('.') + 1;
        return site.Path[at..] switch
        {
            "q_norm" or "q_layernorm" when _model.Find($"{site.Path[..at]}q_proj") is Projection queries => queries.OutFeatures,
            "k_norm" or "k_layernorm" when _model.Find($"{site.Path[..at]}k_proj") is Projection keys => keys.OutFeatures,
            _ => site.Weight.Shape.Count == 1 ? site.Weight.ElementCount : 0,
        };
    }

    /// <summary>Bytes of whole weights that train: those in the type of the computation stay for the backward, and the head's gradient is made before it is added.</summary>
    private double Copies() => _adapter.Parts.Where(entry => entry.Part is TrainableCopy or Adapters.LnTuning.NormCopy).Sum(entry =>
        (_element < sizeof(float) ? entry.Site.Weight.ElementCount * _element : 0)
        + (entry.Site.Path == _model.OutputHead ? entry.Site.Weight.ElementCount * (sizeof(float) + (_element < sizeof(float) ? _element : 0)) : 0));

    /// <summary>Attention's answer, and on a CPU the keys and values once for each head.</summary>
    private double Attention(int queries) => OnGpu ? queries : 2 * queries;

    /// <summary>What a method keeps at a site beyond the site's own input: LoRA its ranks, others their input turned or their output before it is scaled.</summary>
    private static double Beside(SiteAdapter part, int width, int height) => part switch
    {
        LoraProjection { IsPlain: true } lora => lora.Rank,
        LoraProjection lora => lora.Rank + (2.0 * height),
        Ia3Projection scale => scale.State.Sum(state => state.Weight.ElementCount), // what it scales
        TrainableCopy or BaseLayerCopy or Adapters.LnTuning.NormCopy => 0,
        AdditiveSiteAdapter => height,
        _ => width + height,
    };

    private double Widest() => _model.Sites().OfType<Projection>().Where(site => site.Path != _model.OutputHead).Max(site => (double)site.InFeatures + site.OutFeatures);

    /// <summary>Bytes of state for each trained value.</summary>
    private static int StateBytes(OptimizerName optimizer) => optimizer switch
    {
        OptimizerName.Sgd => 0,
        OptimizerName.Adamw8Bit or OptimizerName.AdamwBnb8Bit => 2,
        OptimizerName.Adafactor => 1,
        OptimizerName.Lion or OptimizerName.Adagrad or OptimizerName.Rmsprop or OptimizerName.Muon => 4,
        _ => 8,
    };
}
