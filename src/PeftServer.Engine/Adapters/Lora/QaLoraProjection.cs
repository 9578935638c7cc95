using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>QA-LoRA: A [r, in/group] sees the sums of groups of inputs over the group's size, times the number of groups.</summary>
internal sealed class QaLoraProjection(LoraConfig config, Projection site) : LoraProjection(config, site, r => ([r, Groups(config, site)], [site.OutFeatures, r]))
{
    private readonly long _groups = Groups(config, site);

    protected override Tensor Low(Tensor x, in SiteCall call)
    {
        var means = x.reshape(x.size(0), _groups, Config.QaloraGroupSize).mean([2]); // [n, groups]
        return F.linear(means.Times(_groups), A.to(x.dtype)); // [n, r]
    }

    protected override Tensor Product() =>
        B.to(ScalarType.Float32).mm(A.to(ScalarType.Float32).repeat_interleave(Config.QaloraGroupSize, 1)).Times((double)_groups / Config.QaloraGroupSize);

    private static long Groups(LoraConfig config, Projection site) => site.InFeatures % config.QaloraGroupSize == 0
        ? site.InFeatures / config.QaloraGroupSize
        : throw new AdapterException("qalora_group_size", $"{config.QaloraGroupSize} does not divide the {site.InFeatures} inputs of {site.Path}.");
}
