using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Native;

/// <summary>
/// What a GPU can multiply in a second by its vendor's data sheet: dense products (data sheets like to tell twice that, "with sparsity"), 16-bit floats added up in
/// float32. What one in hand reaches is less, since it is clocked by its power.
/// </summary>
public static class PeakFlops
{
    // TFLOP/s in float32 (without tensor cores), in 16-bit and in 8-bit floats. The first name that stands in the device's counts.
    private static readonly (string Name, double Single, double Half, double Eighth)[] Gpus =
    [
        // "NVIDIA Blackwell Architecture Technical Brief" and the data sheets of GB300 NVL72, GB200 NVL72, HGX B300, HGX B200 and HGX B100, for one GPU.
        ("GB300", 80, 2500, 5000),
        ("GB200", 80, 2500, 5000),
        ("B300", 75, 2250, 4500),
        ("B200", 75, 2250, 4500),
        ("B100", 60, 1750, 3500),

        // "NVIDIA H100 Tensor Core GPU", "NVIDIA H200 Tensor Core GPU" and "NVIDIA GH200 Grace Hopper Superchip", data sheets: half of what they tell "with sparsity".
        ("GH200", 66.9, 989.4, 1978.9),
        ("H200 NVL", 60, 835.5, 1670.5),
        ("H200", 66.9, 989.4, 1978.9),
        ("H100 NVL", 60, 835.5, 1670.5),
        ("H100 PCIe", 51.2, 756.4, 1512.8),
        ("H100", 66.9, 989.4, 1978.9),
        ("H800 PCIe", 51.2, 756.4, 1512.8),
        ("H800", 66.9, 989.4, 1978.9),
        ("H20", 44, 148, 296),

        // "NVIDIA A100 Tensor Core GPU", "NVIDIA A40", "NVIDIA A30", "NVIDIA A10" and "NVIDIA RTX A6000", data sheets; GeForce from "NVIDIA Ampere GA102 GPU Architecture".
        ("A100", 19.5, 312, 0),
        ("A800", 19.5, 312, 0),
        ("A40", 37.4, 149.7, 0),
        ("A30", 10.3, 165, 0),
        ("A10G", 31.5, 70, 0),
        ("A10", 31.2, 125, 0),
        ("RTX A6000", 38.7, 154.8, 0),
        ("RTX 3090 Ti", 40, 80, 0),
        ("RTX 3090", 35.6, 71, 0),

        // "NVIDIA L40S", "NVIDIA L40", "NVIDIA L4" and "NVIDIA RTX 6000 Ada Generation", data sheets; GeForce from "NVIDIA Ada GPU Architecture", added up in float32.
        ("L40S", 91.6, 362.1, 733),
        ("L40", 90.5, 181.1, 362.1),
        ("L20", 59.8, 119.5, 239),
        ("L4", 30.3, 121, 242),
        ("RTX 6000 Ada", 91.1, 364.2, 728.5),
        ("RTX 4090 D", 73.5, 147, 294),
        ("RTX 4090", 82.6, 165.2, 330.3),
        ("RTX 4080 SUPER", 52.2, 104.4, 208.9),
        ("RTX 4080", 48.7, 97.5, 194.9),

        // "NVIDIA RTX Blackwell GPU Architecture" and "NVIDIA RTX PRO Blackwell GPU Architecture", added up in float32; of the PRO the Workstation Edition.
        ("RTX PRO 6000", 126, 503.8, 1007.6),
        ("RTX 5090", 104.8, 209.5, 419),

        // "NVIDIA V100 Tensor Core GPU" and "NVIDIA T4", data sheets.
        ("V100S", 16.4, 130, 0),
        ("V100-PCIE", 14, 112, 0),
        ("V100", 15.7, 125, 0),
        ("T4", 8.1, 65, 0),
    ];

    /// <summary>Parts of a GPU, and GPUs whose clock each maker of a laptop sets.</summary>
    private static readonly string[] Unknowable = ["MIG", "Laptop", "Max-Q"];

    /// <summary>GPUs whose tensor cores take 16-bit floats of the older kind alone.</summary>
    private static readonly string[] WithoutBfloat16 = ["V100", "V100S", "T4"];

    /// <summary>
    /// Operations a second of the GPU called <paramref name="name"/> for products with a base in <paramref name="dtype"/>, held as told; null for one that is not
    /// in the table, for a part of one, and where its tensor cores do not know the type. 4-bit weights are multiplied in the type of the model.
    /// </summary>
    public static double? Of(string name, ScalarType dtype, BaseQuantization quantization = BaseQuantization.None)
    {
        if (Unknowable.Any(word => Names(name, word)) || (dtype is ScalarType.BFloat16 && WithoutBfloat16.Any(word => Names(name, word))))
        {
            return null;
        }

        foreach (var gpu in Gpus.Where(gpu => Names(name, gpu.Name)))
        {
            var tera = quantization is BaseQuantization.Fp8 && gpu.Eighth > 0 ? gpu.Eighth : dtype is ScalarType.Float32 ? gpu.Single : gpu.Half;
            return tera * 1e12;
        }

        return null;
    }

    /// <summary>Whether <paramref name="word"/> stands in a name by itself: an RTX A4000 is no A40, an H100 PCIe is one.</summary>
    private static bool Names(string name, string word)
    {
        for (var at = name.IndexOf(word, StringComparison.OrdinalIgnoreCase); at >= 0; at = name.IndexOf(word, at + 1, StringComparison.OrdinalIgnoreCase))
        {
            var end = at + word.Length;
            if ((at == 0 || !char.IsLetterOrDigit(name[at - 1])) && (end == name.Length || !char.IsLetterOrDigit(name[end])))
            {
                return true;
            }
        }

        return false;
    }
}
