using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// y + s·BAx; VeRA's BA is vera_B·B·vera_D·A with A and B frozen and shared; DoRA gives m/‖W + BA‖ · (y + s·BAx), norm and bias
/// included, with the gradient through the norm.
/// </summary>
internal sealed class HubLora : HubProjectionPart
{
    private readonly HubLoraConfig _config;
    private readonly VeraShared? _vera;
    private readonly Weight? lora_A; // (r, in)
    private readonly Weight? lora_B; // (out, r)
    private readonly Weight? vera_D; // (r, r)
    private readonly Weight? vera_B; // (out, out)
    private readonly Weight? _magnitude; // (out, 1)
    private readonly DenseLinear? _gate;
    private readonly KeptScalar _scale;

    public HubLora(HubLoraConfig config, Projection site, VeraShared? vera)
    {
        (_config, _vera, _scale) = (config, vera, new KeptScalar(config.Scale));
        if (vera is null)
        {
            lora_A = new Weight(config.R, site.InFeatures) { Trainable = true };
            lora_B = new Weight(site.OutFeatures, config.R) { Trainable = true };
        }
        else
        {
            vera_D = new Weight(config.R, config.R) { Trainable = true };
            vera_B = new Weight(site.OutFeatures, site.OutFeatures) { Trainable = true };
        }

        _magnitude = config.UseDora ? new Weight(site.OutFeatures, 1) { Trainable = true } : null;
        _gate = config.UseGating ? new DenseLinear(site.InFeatures, 1) : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            IEnumerable<(string, Weight?)> own = [(nameof(lora_A), lora_A), (nameof(lora_B), lora_B), (nameof(vera_D), vera_D), (nameof(vera_B), vera_B), ("m.weight", _magnitude)];
            return own.Where(entry => entry.Item2 is not null).Select(entry => (entry.Item1, entry.Item2!))
                .Concat((_gate?.State ?? []).Select(state => ($"gate.{state.Name}", state.Weight)));
        }
    }

    internal Weight? A => lora_A;

    internal Weight? B => lora_B;

    public override Tensor Transform(Tensor? state, Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var input = Dropout.Apply(state ?? x, _config.Dropout, call.Batch.Dropout);
        var delta = Low(input); // [n, out]
        return (Gate(_gate, x, call) is { } gate ? delta.mul(gate) : delta.mul(_scale)).MoveToOuterDisposeScope();
    }

    public override Tensor Combine(Tensor y, Tensor state, in SiteCall call)
    {
        var sum = y.Plus(state);
        if (_magnitude is null)
        {
            return sum;
        }

        var direction = ((Projection)call.Site).DenseWeight().to(ScalarType.Float32).Plus(Product()); // [out, in]
        return sum.mul(_magnitude.Value.squeeze(1).div(Norms(direction)).to(y.dtype));
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        HubLoraStart.Draw(_config.InitWeights, lora_A, lora_B, generator, device);
        vera_D?.Set(eye(_config.R, device: device).Times(_config.VeraD!.Value));
        vera_B?.Set(eye(vera_B.Shape[0], device: device).Times(_config.VeraB ?? 0));
        _magnitude?.Set(Norms(((Projection)site).DenseWeight().to(ScalarType.Float32)).unsqueeze(1).clone());
        _gate?.Initialize(LinearStart.Bert, generator, device);
    }

    /// <summary>Exact for LoRA and VeRA. The library's merge of DoRA forgets alpha/r and the bias, so there is none here.</summary>
    public override Tensor Merge(Site site, Tensor weight) => _magnitude is not null || _gate is not null
        ? throw new NotSupportedException(
            $"{(_gate is null ? "use_dora" : "use_gating")}: {site.Path} cannot be merged; {(_gate is null ? "the library's merge loses alpha/r and the bias" : "a gate depends on the input")}. Serve it unmerged.")
        : weight.to(ScalarType.Float32).Plus(Product().mul(_scale));

    /// <summary>BA, without the scale: [out, in].</summary>
    internal Tensor Product() => _vera is null ? lora_B!.Value.mm(lora_A!.Value) : vera_B!.Value.mm(_vera.B.Value).mm(vera_D!.Value).mm(_vera.A.Value);

    private Tensor Low(Tensor x)
    {
        if (_vera is null)
        {
            return F.linear(F.linear(x, lora_A!.Value.to(x.dtype)), lora_B!.Value.to(x.dtype));
        }

        var low = F.linear(F.linear(x, _vera.A.Value.to(x.dtype)), vera_D!.Value.to(x.dtype)); // [n, r]
        return F.linear(F.linear(low, _vera.B.Value.to(x.dtype)), vera_B!.Value.to(x.dtype)); // [n, out]
    }

    private static Tensor Norms(Tensor weight) => weight.square().sum(1).sqrt(); // [out]
}

/// <summary>VeRA's frozen matrices, one pair for all projections.</summary>
internal sealed record VeraShared(Weight A, Weight B)
{
    public static VeraShared Attach(HubLoraConfig config, Projection site, HubAdapter adapter)
    {
        var a = adapter.Share("shared_parameters", "lora_A", () => new Weight(config.R, site.InFeatures), (weight, generator, device) => HubLoraStart.Draw(config.InitWeights, weight, null, generator, device));
        var b = adapter.Share("shared_parameters", "lora_B", () => new Weight(site.OutFeatures, config.R), (weight, generator, device) => HubLoraStart.Draw(config.InitWeights, null, weight, generator, device));
        return a.Shape[1] == site.InFeatures && b.Shape[0] == site.OutFeatures
            ? new VeraShared(a, b)
            : throw new AdapterException("vera_d", $"{site.Path} is [{site.OutFeatures}, {site.InFeatures}], but VeRA shares matrices for [{b.Shape[0]}, {a.Shape[1]}]. Choose projections of one shape.");
    }
}

/// <summary>How the library's LoRA starts.</summary>
internal static class HubLoraStart
{
    /// <summary>Draws A and B; either may be absent.</summary>
    public static void Draw(string kind, Weight? a, Weight? b, Generator generator, Device device)
    {
        switch (kind)
        {
            case "bert":
                a?.Normal(0.02, generator, device);
                b?.Normal(0.02, generator, device);
                break;
            case "ia3":
                a?.Ones(device);
                b?.Ones(device);
                break;
            case "vera": // Kaiming-uniform without a slope
                a?.Uniform(Math.Sqrt(6.0 / a.Shape[^1]), generator, device);
                b?.Uniform(Math.Sqrt(6.0 / b.Shape[^1]), generator, device);
                break;
            default:
                a?.Kaiming(a.Shape[^1], generator, device);
                b?.Zeros(device);
                break;
        }
    }
}
