using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// LoRA or (IA)³ on a projection that makes q, k and v at once (GPT-2's c_attn): for each that is adapted a pair of its own, one below
/// the other in the same two matrices.
/// </summary>
internal sealed class FusedLora : HubProjectionPart
{
    private readonly HubLoraConfig _config;
    private readonly int[] _matrices;
    private readonly int _width;
    private readonly Weight? lora_A; // (r · k, in)
    private readonly Weight lora_B; // (width · k, r)
    private readonly DenseLinear? _gate;

    public FusedLora(HubLoraConfig config, Projection site, int[] matrices)
    {
        if (config.UseDora || config.VeraD is not null)
        {
            throw new AdapterException(config.UseDora ? "use_dora" : "vera_d", $"is not possible on {site.Path}, which makes q, k and v at once.");
        }

        (_config, _matrices, _width) = (config, matrices, site.OutFeatures / 3);
        lora_A = config.Scales ? null : new Weight(config.R * matrices.Length, site.InFeatures) { Trainable = true };
        lora_B = new Weight(_width * matrices.Length, config.R) { Trainable = true };
        _gate = config.UseGating ? new DenseLinear(site.InFeatures, matrices.Length) : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            if (lora_A is not null)
            {
                yield return (nameof(lora_A), lora_A);
            }

            yield return (nameof(lora_B), lora_B);
            foreach (var (name, weight) in _gate?.State ?? [])
            {
                yield return ($"gate.{name}", weight);
            }
        }
    }

    public override Tensor Transform(Tensor? state, Tensor x, in SiteCall call)
    {
        if (state is not null)
        {
            throw new NotSupportedException($"{call.Site.Path} makes q, k and v at once: adapters on it cannot be stacked.");
        }

        using var scope = NewDisposeScope();
        x = Dropout.Apply(x, _config.Dropout, call.Batch.Dropout);
        var gate = Gate(_gate, x, call); // [n, k]
        var pieces = new Tensor[3];
        for (var i = 0; i < 3; i++)
        {
            var at = Array.IndexOf(_matrices, i);
            pieces[i] = at >= 0 ? Piece(x, at, gate)
                : _config.Scales ? ones(x.size(0), _width, dtype: x.dtype, device: x.device) : zeros(x.size(0), _width, dtype: x.dtype, device: x.device);
        }

        return cat(pieces, -1).MoveToOuterDisposeScope(); // [n, out]
    }

    public override Tensor Combine(Tensor y, Tensor state, in SiteCall call) => _config.Scales ? y.mul(state) : y.Plus(state);

    public override void Initialize(Site site, Generator generator)
    {
        HubLoraStart.Draw(_config.InitWeights, lora_A, lora_B, generator, site.Weight.Value.device);
        _gate?.Initialize(LinearStart.Bert, generator, site.Weight.Value.device);
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        if (_gate is not null || _config.Scales)
        {
            throw new NotSupportedException(
                $"{(_gate is null ? "composition_mode" : "use_gating")}: {site.Path} cannot be merged; {(_gate is null ? "the library's merge leaves its bias unscaled" : "a gate depends on the input")}. Serve it unmerged.");
        }

        var merged = weight.to(ScalarType.Float32, copy: true);
        for (var at = 0; at < _matrices.Length; at++)
        {
            var product = lora_B.Value.narrow(0, at * _width, _width).mm(lora_A!.Value.narrow(0, at * _config.R, _config.R));
            merged.narrow(0, _matrices[at] * _width, _width).Add(product, _config.Scale);
        }

        return merged;
    }

    private Tensor Piece(Tensor x, int at, Tensor? gate)
    {
        var b = lora_B.Value.narrow(0, at * _width, _width).to(x.dtype); // [width, r]
        var piece = lora_A is null
            ? b.t().expand(x.size(0), _width)
            : F.linear(F.linear(x, lora_A.Value.narrow(0, at * _config.R, _config.R).to(x.dtype)), b); // [n, width]
        return gate is null ? piece.Times(_config.Scale) : piece.mul(gate.narrow(-1, at, 1));
    }
}
