; What a single instruction of LLVM cannot say: functions with the names of PTX instructions.

; --- shifts: by as much as a register is wide, or more, nothing is left ---------------------------

define internal i32 @shl.b32(i32 %a, i32 %n) alwaysinline {
  %wide = icmp ugt i32 %n, 31
  %shifted = shl i32 %a, %n
  %r = select i1 %wide, i32 0, i32 %shifted
  ret i32 %r
}

define internal i64 @shl.b64(i64 %a, i32 %n) alwaysinline {
  %wide = icmp ugt i32 %n, 63
  %m = zext i32 %n to i64
  %shifted = shl i64 %a, %m
  %r = select i1 %wide, i64 0, i64 %shifted
  ret i64 %r
}

define internal i32 @shr.u32(i32 %a, i32 %n) alwaysinline {
  %wide = icmp ugt i32 %n, 31
  %shifted = lshr i32 %a, %n
  %r = select i1 %wide, i32 0, i32 %shifted
  ret i32 %r
}

define internal i64 @shr.u64(i64 %a, i32 %n) alwaysinline {
  %wide = icmp ugt i32 %n, 63
  %m = zext i32 %n to i64
  %shifted = lshr i64 %a, %m
  %r = select i1 %wide, i64 0, i64 %shifted
  ret i64 %r
}

define internal i32 @shr.s32(i32 %a, i32 %n) alwaysinline {
  %most = call i32 @llvm.umin.i32(i32 %n, i32 31)
  %r = ashr i32 %a, %most
  ret i32 %r
}

define internal i64 @shr.s64(i64 %a, i32 %n) alwaysinline {
  %most = call i32 @llvm.umin.i32(i32 %n, i32 63)
  %m = zext i32 %most to i64
  %r = ashr i64 %a, %m
  ret i64 %r
}

define internal i16 @shl.b16(i16 %a, i32 %n) alwaysinline {
  %wide = zext i16 %a to i32
  %shifted = call i32 @shl.b32(i32 %wide, i32 %n)
  %r = trunc i32 %shifted to i16
  ret i16 %r
}

define internal i16 @shr.u16(i16 %a, i32 %n) alwaysinline {
  %wide = zext i16 %a to i32
  %shifted = call i32 @shr.u32(i32 %wide, i32 %n)
  %r = trunc i32 %shifted to i16
  ret i16 %r
}

define internal i16 @shr.s16(i16 %a, i32 %n) alwaysinline {
  %wide = sext i16 %a to i32
  %shifted = call i32 @shr.s32(i32 %wide, i32 %n)
  %r = trunc i32 %shifted to i16
  ret i16 %r
}

; --- integers: what PTX leaves open, division by zero, gives all ones -----------------------------

define internal i32 @div.u32(i32 %a, i32 %b) alwaysinline {
  %zero = icmp eq i32 %b, 0
  %safe = select i1 %zero, i32 1, i32 %b
  %q = udiv i32 %a, %safe
  %r = select i1 %zero, i32 -1, i32 %q
  ret i32 %r
}

define internal i32 @rem.u32(i32 %a, i32 %b) alwaysinline {
  %zero = icmp eq i32 %b, 0
  %safe = select i1 %zero, i32 1, i32 %b
  %q = urem i32 %a, %safe
  %r = select i1 %zero, i32 -1, i32 %q
  ret i32 %r
}

define internal i64 @div.s64(i64 %a, i64 %b) alwaysinline {
  %zero = icmp eq i64 %b, 0
  %minus = icmp eq i64 %b, -1
  %special = or i1 %zero, %minus
  %safe = select i1 %special, i64 1, i64 %b
  %q = sdiv i64 %a, %safe
  %negative = sub i64 0, %a
  %r1 = select i1 %minus, i64 %negative, i64 %q
  %r = select i1 %zero, i64 -1, i64 %r1
  ret i64 %r
}

define internal i64 @rem.s64(i64 %a, i64 %b) alwaysinline {
  %zero = icmp eq i64 %b, 0
  %minus = icmp eq i64 %b, -1
  %special = or i1 %zero, %minus
  %safe = select i1 %special, i64 1, i64 %b
  %q = srem i64 %a, %safe
  %r = select i1 %zero, i64 -1, i64 %q
  ret i64 %r
}

define internal i64 @mul.wide.s32(i32 %a, i32 %b) alwaysinline {
  %x = sext i32 %a to i64
  %y = sext i32 %b to i64
  %r = mul i64 %x, %y
  ret i64 %r
}

define internal i64 @mul.wide.u32(i32 %a, i32 %b) alwaysinline {
  %x = zext i32 %a to i64
  %y = zext i32 %b to i64
  %r = mul i64 %x, %y
  ret i64 %r
}

define internal i64 @mul.hi.s64(i64 %a, i64 %b) alwaysinline {
  %x = sext i64 %a to i128
  %y = sext i64 %b to i128
  %product = mul i128 %x, %y
  %high = lshr i128 %product, 64
  %r = trunc i128 %high to i64
  ret i64 %r
}

define internal i32 @mad.lo.s32(i32 %a, i32 %b, i32 %c) alwaysinline {
  %product = mul i32 %a, %b
  %r = add i32 %product, %c
  ret i32 %r
}

define internal i32 @mad.lo.u32(i32 %a, i32 %b, i32 %c) alwaysinline {
  %product = mul i32 %a, %b
  %r = add i32 %product, %c
  ret i32 %r
}

define internal i64 @mad.lo.s64(i64 %a, i64 %b, i64 %c) alwaysinline {
  %product = mul i64 %a, %b
  %r = add i64 %product, %c
  ret i64 %r
}

define internal i64 @mad.lo.u64(i64 %a, i64 %b, i64 %c) alwaysinline {
  %product = mul i64 %a, %b
  %r = add i64 %product, %c
  ret i64 %r
}

define internal i32 @mul.hi.u32(i32 %a, i32 %b) alwaysinline {
  %x = zext i32 %a to i64
  %y = zext i32 %b to i64
  %product = mul i64 %x, %y
  %high = lshr i64 %product, 32
  %r = trunc i64 %high to i32
  ret i32 %r
}

; --- floats: approximations, and roundings that are not to nearest --------------------------------

define internal float @flushed(float %a) alwaysinline {
  %size = call float @llvm.fabs.f32(float %a)
  %tiny = fcmp olt float %size, 0x3810000000000000
  %zero = call float @llvm.copysign.f32(float 0.0, float %a)
  %r = select i1 %tiny, float %zero, float %a
  ret float %r
}

define internal float @ex2.approx.ftz.f32(float %a) alwaysinline {
  %x = call float @flushed(float %a)
  %y = call float @llvm.exp2.f32(float %x)
  %r = call float @flushed(float %y)
  ret float %r
}

; the upper half of the bits
define internal double @rcp.approx.ftz.f64(double %a) alwaysinline {
  %whole = fdiv double 1.0, %a
  %bits = bitcast double %whole to i64
  %upper = and i64 %bits, -4294967296
  %r = bitcast i64 %upper to double
  ret double %r
}

define internal float @cvt.sat.f32.f32(float %a) alwaysinline {
  %low = fcmp ogt float %a, 0.0
  %high = fcmp ogt float %a, 1.0
  %r1 = select i1 %low, float %a, float 0.0
  %r = select i1 %high, float 1.0, float %r1
  ret float %r
}

; to nearest, ties to even
define internal i16 @cvt.rn.bf16.f32(float %a) alwaysinline {
  %nan = fcmp uno float %a, %a
  %bits = bitcast float %a to i32
  %shifted = lshr i32 %bits, 16
  %odd = and i32 %shifted, 1
  %half = add i32 %odd, 32767
  %sum = add i32 %bits, %half
  %upper = lshr i32 %sum, 16
  %rounded = trunc i32 %upper to i16
  %r = select i1 %nan, i16 32767, i16 %rounded
  ret i16 %r
}

; to nearest, ties away from zero
define internal i32 @cvt.rna.tf32.f32(float %a) alwaysinline {
  %bits = bitcast float %a to i32
  %exponent = and i32 %bits, 2139095040
  %special = icmp eq i32 %exponent, 2139095040
  %sum = add i32 %bits, 4096
  %rounded = and i32 %sum, -8192
  %nan = fcmp uno float %a, %a
  %odd = select i1 %nan, i32 2147483647, i32 %bits
  %r = select i1 %special, i32 %odd, i32 %rounded
  ret i32 %r
}

; the error of the sum a + b = s, which is a number itself
define internal double @error(double %a, double %b, double %s) alwaysinline {
  %bb = fsub double %s, %a
  %aa = fsub double %s, %bb
  %db = fsub double %b, %bb
  %da = fsub double %a, %aa
  %r = fadd double %da, %db
  ret double %r
}

; s + e, rounded towards zero
define internal float @towards.zero(double %s, double %e) alwaysinline {
  %near = fptrunc double %s to float
  %there = fpext float %near to double
  %size = call double @llvm.fabs.f64(double %there)
  %whole = call double @llvm.fabs.f64(double %s)
  %greater = fcmp ogt double %size, %whole
  %same = fcmp oeq double %there, %s
  %product = fmul double %s, %e
  %less = fcmp olt double %product, 0.0
  %beyond = and i1 %same, %less
  %cut = or i1 %greater, %beyond
  %bits = bitcast float %near to i32
  %before = sub i32 %bits, 1
  %chosen = select i1 %cut, i32 %before, i32 %bits
  %r = bitcast i32 %chosen to float
  ret float %r
}

define internal float @add.rz.f32(float %a, float %b) alwaysinline {
  %x = fpext float %a to double
  %y = fpext float %b to double
  %s = fadd double %x, %y
  %e = call double @error(double %x, double %y, double %s)
  %r = call float @towards.zero(double %s, double %e)
  ret float %r
}

; s + e, rounded down: towards zero, and one further if that is greater
define internal float @fma.rm.f32(float %a, float %b, float %c) alwaysinline {
  %x = fpext float %a to double
  %y = fpext float %b to double
  %z = fpext float %c to double
  %product = fmul double %x, %y
  %s = fadd double %product, %z
  %e = call double @error(double %product, double %z, double %s)
  %cut = call float @towards.zero(double %s, double %e)
  %there = fpext float %cut to double
  %greater = fcmp ogt double %there, %s
  %same = fcmp oeq double %there, %s
  %less = fcmp olt double %e, 0.0
  %beyond = and i1 %same, %less
  %lower = or i1 %greater, %beyond
  %bits = bitcast float %cut to i32
  %zero = fcmp oeq float %cut, 0.0
  %next = add i32 %bits, 1
  %least = select i1 %zero, i32 -2147483647, i32 %next
  %chosen = select i1 %lower, i32 %least, i32 %bits
  %r = bitcast i32 %chosen to float
  ret float %r
}

