using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdaptionPrompt;

/// <summary>g · softmax(q kᵀ/√D) v for the keys and values that the layer's own projections make of the vectors. They have no position.</summary>
internal sealed class AdaptionPromptPart : AttentionPart
{
    private readonly Projection? _values; // null where keys and values come from one projection
    private readonly Weight adaption_prompt; // (1, len, hidden)
    private readonly Weight adaption_gate; // (1)

    public AdaptionPromptPart(AdaptionPromptConfig config, PretrainedModel model, string path)
    {
        var isGpt = model.Config.ModelType == "gpt2";
        (Keys, Heads) = (Projection(model, $"{path}.{(isGpt ? "c_attn" : "k_proj")}"), model.Config.Int(isGpt ? "n_head" : "num_attention_heads"));
        _values = isGpt ? null : Projection(model, $"{path}.v_proj");
        if (!isGpt && Projection(model, $"{path}.o_proj").Bias is not null)
        {
            throw new AdapterException("peft_type", $"ADAPTION_PROMPT is not supported on a {model.Config.ModelType} whose {path}.o_proj has a bias: PEFT adds it twice.");
        }

        adaption_prompt = new Weight(1, config.AdapterLen, model.HiddenSize) { Trainable = true };
        adaption_gate = new Weight(1) { Trainable = true };
    }

    /// <summary>The projection that makes keys of the vectors, and on GPT-2 queries and values as well.</summary>
    public Projection Keys { get; }

    /// <summary>Heads of the queries.</summary>
    public int Heads { get; }

    public IEnumerable<(string Name, Weight Weight)> State => [(nameof(adaption_prompt), adaption_prompt), (nameof(adaption_gate), adaption_gate)];

    public override Tensor Delta(Tensor q, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var vectors = adaption_prompt.Value.squeeze(0).to(q.dtype); // [P, hidden]
        var keys = Keys.Frozen(vectors);
        var (k, v) = _values is not null
            ? (Grouped(keys, q), Grouped(_values.Frozen(vectors), q)) // [H, P, D]
            : (Grouped(keys.chunk(3, -1)[1], q), Grouped(keys.chunk(3, -1)[2], q));
        var scores = q.transpose(0, 1).bmm(k.transpose(1, 2)).Times(1 / Math.Sqrt(q.size(2))); // [H, n, P]
        var weights = scores.softmax(-1, ScalarType.Float32).mul(adaption_gate.Value.to(ScalarType.Float32)).to(q.dtype);
        return weights.bmm(v).transpose(0, 1).MoveToOuterDisposeScope(); // [n, H, D]
    }

    public void Initialize(Generator generator, Device device)
    {
        adaption_prompt.Normal(1, generator, device);
        adaption_gate.Zeros(device);
    }

    public static Projection Projection(PretrainedModel model, string path) => model.Find(path) as Projection
        ?? throw new AdapterException("target_modules", $"ADAPTION_PROMPT needs {path}, which this {model.Config.ModelType} does not have.");

    /// <summary>[P, G·D] as [H, P, D]: the heads of a group share theirs.</summary>
    private static Tensor Grouped(Tensor x, Tensor q)
    {
        var heads = x.reshape(x.size(0), -1, q.size(2)).transpose(0, 1); // [G, P, D]
        return q.size(1) == heads.size(0) ? heads : heads.repeat_interleave(q.size(1) / heads.size(0), 0);
    }
}
