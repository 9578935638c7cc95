using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>(IA)³ of the library: y · (alpha·B), the bias included, at every projection.</summary>
internal sealed class HubIa3 : HubProjectionPart
{
    private readonly HubLoraConfig _config;
    private readonly Weight lora_B; // (out, 1)
    private readonly DenseLinear? _gate;

    public HubIa3(HubLoraConfig config, Projection site)
    {
        _config = config;
        lora_B = new Weight(site.OutFeatures, 1) { Trainable = true };
        _gate = config.UseGating ? new DenseLinear(site.InFeatures, 1) : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        (_gate?.State ?? []).Select(state => ($"gate.{state.Name}", state.Weight)).Prepend((nameof(lora_B), lora_B));

    public override Tensor Transform(Tensor? state, Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var factors = lora_B.Value.t().to(x.dtype); // [1, out]
        factors = state is null ? factors : state.mul(factors);
        return (Gate(_gate, x, call) is { } gate ? factors.mul(gate) : factors.Times(_config.Alpha)).MoveToOuterDisposeScope();
    }

    public override Tensor Combine(Tensor y, Tensor state, in SiteCall call) => y.mul(state);

    public override void Initialize(Site site, Generator generator)
    {
        HubLoraStart.Draw(_config.InitWeights, null, lora_B, generator, site.Weight.Value.device);
        _gate?.Initialize(LinearStart.Bert, generator, site.Weight.Value.device);
    }

    /// <summary>Exact without a bias, which the library's merge forgets to scale.</summary>
    public override Tensor Merge(Site site, Tensor weight) => _gate is not null || site.Bias is not null
        ? throw new NotSupportedException(
            $"composition_mode: {site.Path} cannot be merged; {(_gate is null ? "the library's merge leaves its bias unscaled" : "a gate depends on the input")}. Serve it unmerged.")
        : weight.to(ScalarType.Float32).mul(lora_B.Value.Times(_config.Alpha));
}
